// Whether this page gives what Python gave for some titles: the same ids, and losses within a bound.
import { Reader } from "./reader.js";

// Yields after each title, so that others get their turn; returns { passed, titles, otherIds, worst, most }.
export function* parity(model, tokenizer, { titles, most }) {
  const reader = new Reader(model, tokenizer);
  let [otherIds, worst] = [0, 0];
  for (const { text, ids, loss } of titles) {
    try {
      const found = reader.read(text, 0);
      if (found.ids.join() !== ids.join()) otherIds += 1;
      const difference = Math.abs(found.loss - loss);
      if (!(difference <= worst)) worst = difference; // whatever is no number is the worst
    } catch {
      otherIds += 1; // the text can't be given back
    }
    yield;
  }
  return { passed: otherIds === 0 && worst <= most, titles: titles.length, otherIds, worst, most };
}
