// Draws charts in the colours of the page, and anew when it turns dark or light. Vega comes from the same server, or is there already.

const dark = matchMedia("(prefers-color-scheme: dark)");
const charts = [];
let library;

export function draw(place, spec) {
  charts.push([place, spec]);
  library ??= globalThis.vegaEmbed ? Promise.resolve() : loaded("vega.js");
  library.then(() => embed(place, spec)).catch((error) => told(place, error));
}

dark.addEventListener("change", () => charts.forEach(([place, spec]) => library.then(() => embed(place, spec))));

function embed(place, spec) {
  const options = { renderer: "svg", actions: false, ast: true, config: config(), defaultStyle: false, tooltip: { disableDefaultStyle: true } };
  return vegaEmbed(place, spec, options).catch((error) => told(place, error));
}

function told(place, error) {
  place.textContent = `This chart can't be drawn: ${error.message}`;
}

function loaded(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = resolve;
    script.onerror = () => reject(new Error("Vega could not be loaded"));
    document.head.append(script);
  });
}

function config() {
  const style = getComputedStyle(document.documentElement);
  const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { labelColor: text, titleColor: text, domainColor: line, tickColor: line, gridColor: line };
  const label = { labelColor: text, titleColor: text };
  return { background: "transparent", axis, legend: label, header: label, view: { stroke: line }, text: { color: text } };
}
