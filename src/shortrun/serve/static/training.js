// How the prediction for a text changed over training: a row for each checkpoint.
import { h } from "./dom.js";
import { percent, tokenText } from "./format.js";

const TOP = 3;

// rows: { step, reading }, the reading null while it is asked for. at: the place whose prediction is shown, as a number of a token.
export function renderTraining(body, rows, at) {
  body.replaceChildren(
    ...rows.map(({ step, reading }) => {
      if (!reading) return h("tr", {}, h("th", { scope: "row" }, step.toLocaleString("en")), h("td", { colspan: 2 }, "…"));
      const place = Math.min(at(reading), reading.tokens.length - 1);
      const best = reading.tokens[place].guesses.slice(0, TOP);
      const told = best.map((guess) => h("div", {}, ...tokenText(guess), ` ${percent(guess.probability)}`));
      return h(
        "tr",
        {},
        h("th", { scope: "row" }, step.toLocaleString("en")),
        h("td", { class: "right" }, reading.loss.toFixed(3)),
        h("td", {}, ...told),
      );
    }),
  );
}
