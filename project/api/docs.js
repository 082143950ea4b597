// A file of its own, because the page's Content-Security-Policy allows no script within the HTML.

// Swagger UI has dark colors for this class.
const darkMode = matchMedia('(prefers-color-scheme: dark)');
const followReader = () => document.documentElement.classList.toggle('dark-mode', darkMode.matches);
darkMode.addEventListener('change', followReader);
followReader();

// The page begins with the operations. What holds for all of them stands at its end.
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
        React.createElement('h2', null, 'What holds for all operations'),
        React.createElement(getComponent('Markdown', true), { source: specSelectors.info().get('description') }),
      ),
    ),
  },
});

SwaggerUIBundle({
  dom_id: '#swagger-ui',
  // Relative to the page, so that it holds behind a proxy that adds a path.
  url: new URL('openapi.yaml', document.baseURI).href,
  validatorUrl: null, // Otherwise a badge of another host would be asked for.
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  plugins: [remarksLast],
});
