// The cookie of a login at this host goes along by itself; a token can be typed under "Authorize".
SwaggerUIBundle({
  url: new URL("openapi.json", window.location.href).href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayOperationId: true,
  filter: true,
  tryItOutEnabled: true,
  // Otherwise the page asks a server of Swagger's about the document.
  validatorUrl: null,
});
