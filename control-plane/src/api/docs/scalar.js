// Nothing of this may ask another host: no fonts, no proxy, no telemetry, no assistant.
Scalar.createApiReference("#app", {
  url: new URL("openapi.json", window.location.href).href,
  withDefaultFonts: false,
  telemetry: false,
  proxyUrl: "",
  agent: { disabled: true },
  mcp: { disabled: true },
  hideClientButton: true,
  showDeveloperTools: "never",
});
