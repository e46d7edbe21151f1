// Draws every chart in the colours of the page, and anew when the page turns dark or light.
const specs = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

function config() {
  const text = dark.matches ? "#e4e8ec" : "#1c2126";
  const line = dark.matches ? "#38414a" : "#d5dae0";
  const axis = { labelColor: text, titleColor: text, domainColor: line, tickColor: line, gridColor: line };
  return {
    background: "transparent", axis,
    title: { color: text, subtitleColor: text },
    legend: { labelColor: text, titleColor: text },
    header: { labelColor: text, titleColor: text },
    view: { stroke: line },
    text: { color: text },
  };
}

function draw() {
  for (const place of document.querySelectorAll("[data-chart]")) {
    vegaEmbed(place, specs[place.dataset.chart], { renderer: "svg", actions: false, ast: true, config: config() })
      .catch((error) => { place.textContent = "This chart can't be drawn: " + error.message; });
  }
}

dark.addEventListener("change", draw);
draw();
