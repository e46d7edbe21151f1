// What computes, in a thread of its own, so that typing stays smooth. Long work gives way to readings every 20 milliseconds.
import { documents } from "./draw.js";
import { Model } from "./model.js";
import { parity } from "./parity.js";
import { Reader } from "./reader.js";
import { tokenizerOf } from "./tokenizer.js";
import { matrices, unpacked } from "./unpack.js";

const SLICE = 20;
const stopped = new Set();
let parts;

async function begun({ model, tokenizer, weights }) {
  const made = new Model(model.config, matrices(await unpacked(weights), model.sizes));
  const words = tokenizerOf(tokenizer);
  return { model: made, tokenizer: words, reader: new Reader(made, words) };
}

const pause = () => new Promise((resolve) => setTimeout(resolve));

// Goes through a generator a slice at a time; returns what it returns.
async function slices(steps, id, tell) {
  let end = performance.now() + SLICE;
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
    if (value) tell(value);
    if (performance.now() < end) continue;
    await pause();
    if (stopped.has(id)) return undefined;
    end = performance.now() + SLICE;
  }
}

const work = {
  async read({ text, top }) {
    return parts.reader.read(text, top);
  },
  sample: (question, id, tell) => slices(documents(parts.model, parts.tokenizer, question), id, tell),
  check: (block, id) => slices(parity(parts.model, parts.tokenizer, block), id, () => {}),
};

let ready;
self.addEventListener("message", async ({ data: { id, name, value } }) => {
  if (name === "stop") {
    stopped.add(id);
    return;
  }
  try {
    if (name === "begin") ready = begun(value);
    parts = await ready;
    const found = name === "begin" ? null : await work[name](value, id, (part) => self.postMessage({ id, part }));
    self.postMessage({ id, done: true, value: found });
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
  stopped.delete(id);
});
