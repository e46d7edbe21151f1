// Numbers and tokens as a person reads them.
import { h } from "./dom.js";

export function percent(probability) {
  if (probability >= 0.0995) return `${(100 * probability).toFixed(1)} %`;
  if (probability >= 0.0001) return `${(100 * probability).toFixed(2)} %`;
  return probability > 0 ? `${(100 * probability).toExponential(0)} %` : "0 %";
}

export const nats = (value) => value.toFixed(2);
export const count = (value) => value.toLocaleString("en");

// The class of a surprisal, as the legend has it.
export function level(surprisal) {
  return `s${[1, 3, 6, 9].filter((limit) => surprisal >= limit).length}`;
}

// A token: spaces at its edges are shown to the eye, and left out for the ear.
export function tokenText(guess) {
  if (guess.end) return [h("span", { class: "special" }, "end")];
  const inner = guess.token.trim();
  const at = inner ? guess.token.indexOf(inner) : guess.token.length;
  const mark = (spaces) => (spaces ? [h("span", { class: "space", "aria-hidden": "true" }, "␣".repeat(spaces.length))] : []);
  const end = inner ? guess.token.slice(at + inner.length) : "";
  const said = inner ? inner : h("span", { class: "unseen" }, "space");
  return [...mark(guess.token.slice(0, at)), said, ...mark(end)];
}
