// Two readings of a text beside each other: who was less surprised by each part of it.
import { fill, h } from "./dom.js";
import { nats } from "./format.js";
import { better } from "./reading.js";

const LETTERS = ["A", "B"];

export function renderDifference(sum, list, spans, names) {
  const parts = better(spans);
  const [first, second] = [0, 1].map((run) => spans.reduce((total, span) => total + span.nats[run], 0));
  const who = first < second ? 0 : 1;
  const won = (run) => parts.filter((part) => part.who === run).length;
  const by = Math.abs(first - second);
  sum.textContent =
    by < 0.05
      ? `Both find this headline equally likely: ${nats(first)} nats.`
      : `${LETTERS[who]} (${names[who]}) is better by ${nats(by)} nats: ${nats([first, second][who])} against ` +
        `${nats([first, second][1 - who])}. Of ${parts.length} parts A guessed ${won(0)} better, and B ${won(1)}.`;
  fill(
    list,
    parts,
    () => h("li", {}, h("span"), h("small")),
    (item, part) => {
      item.className = part.who === null ? "" : LETTERS[part.who].toLowerCase();
      item.firstElementChild.textContent = part.text || "end";
      const told = part.who === null ? "same" : `${LETTERS[part.who]} ${part.by.toFixed(1)}`;
      item.lastElementChild.textContent = told;
    },
  );
}
