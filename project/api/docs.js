// This is not in the HTML, because the Content-Security-Policy of the page allows no inline scripts.

// Swagger UI has dark colors for this class.
const darkMode = matchMedia('(prefers-color-scheme: dark)');
const followReader = () => document.documentElement.classList.toggle('dark-mode', darkMode.matches);
darkMode.addEventListener('change', followReader);
followReader();

// The page begins with the operations. The remarks about all of them are at its end.
const remarksLast = ({ React, getComponent, specSelectors }) => ({
  statePlugins: { spec: { wrapSelectors: { selectInfoDescriptionField: () => () => '' } } },
  wrapComponents: {
    Models: (Original) => (props) => React.createElement(
      React.Fragment,
      null,
      React.createElement(Original, props),
      React.createElement(
        'section',
        { className: 'remarks' },
        React.createElement('h2', null, 'Rules for all operations'),
        React.createElement(getComponent('Markdown', true), { source: specSelectors.info().get('description') }),
      ),
    ),
  },
});

SwaggerUIBundle({
  dom_id: '#swagger-ui',
  // Relative to the page, so that it works behind a proxy that adds a path prefix.
  url: new URL('openapi.yaml', document.baseURI).href,
  validatorUrl: null, // Otherwise the page would request a badge from another host.
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  plugins: [remarksLast],
});
