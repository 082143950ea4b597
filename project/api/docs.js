// A file of its own, because the page's Content-Security-Policy allows no script within the HTML.
SwaggerUIBundle({
  dom_id: '#swagger-ui',
  // Relative to the page, so that it holds behind a proxy that adds a path.
  url: new URL('openapi.yaml', document.baseURI).href,
  validatorUrl: null, // Otherwise a badge of another host would be asked for.
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
});
