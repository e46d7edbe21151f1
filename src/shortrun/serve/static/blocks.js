// The report's sections, which are plain data: paragraphs, lists, tables, and charts of Vega-Lite.
import { h } from "./dom.js";

// drawn(element, spec) draws a chart.
export function renderSections(parent, sections, drawn) {
  parent.replaceChildren(
    ...sections.flatMap((section) => [h("h3", {}, section.title), ...section.blocks.map((block) => rendered(block, section.title, drawn))]),
  );
}

function rendered(block, title, drawn) {
  if (block.kind === "table") return scrolled(block.caption || title, table(block));
  if (block.kind === "figure") return figure(block, drawn);
  if (block.kind === "items") {
    return h("ul", {}, ...block.items.map(([head, text]) => h("li", {}, h("strong", {}, head), text ? `: ${text}` : "")));
  }
  return h("p", {}, block.text ?? "");
}

function scrolled(name, content) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, content);
}

function table({ caption, headings, rows, right }) {
  const place = (at) => (right[at] ? "right" : null);
  return h(
    "table",
    {},
    caption ? h("caption", {}, caption) : null,
    h("thead", {}, h("tr", {}, ...headings.map((heading, at) => (heading ? h("th", { scope: "col", class: place(at) }, heading) : h("td"))))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell, at) => h("td", { class: place(at) }, cell))))),
  );
}

function figure({ caption, chart }, drawn) {
  const place = h("div", { class: "chart", role: "img", "aria-label": caption });
  if (chart) drawn(place, chart);
  return h("figure", {}, scrolled(caption, place), h("figcaption", {}, caption));
}
