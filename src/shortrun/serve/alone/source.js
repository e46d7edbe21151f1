// Where predictions come from: this file itself. It has the functions of the server's source.
import { unpacked } from "./unpack.js";

const block = (id) => document.getElementById(id).textContent;
const address = URL.createObjectURL(new Blob([block("worker")], { type: "text/javascript" }));
const worker = new Worker(address);
const waiting = new Map(); // what to do with answers, by the number of the question
let asked = 0;

worker.addEventListener("message", ({ data }) => waiting.get(data.id)?.(data));
worker.addEventListener("error", ({ message }) => waiting.forEach((answer) => answer({ error: message || "This browser starts no worker" })));

function ask(name, value, onPart) {
  const id = (asked += 1);
  const answered = new Promise((resolve, reject) => {
    waiting.set(id, ({ part, value: found, error }) => {
      if (part) return onPart(part);
      waiting.delete(id);
      return error === undefined ? resolve(found) : reject(new Error(error));
    });
  });
  worker.postMessage({ id, name, value });
  return { id, answered };
}

async function begin() {
  const facts = JSON.parse(new TextDecoder().decode(await unpacked(block("facts"))));
  const { model, tokenizer } = facts;
  await ask("begin", { model, tokenizer, weights: block("weights") }).answered;
  document.getElementById("weights").remove(); // its text takes as much memory as the weights
  return facts;
}

const begun = begin();

export const explained = (error) => error.message;

export async function runs() {
  const { limits, run } = await begun;
  return { limits, runs: [run] };
}

export async function read(text) {
  const { run } = await begun;
  const { answered } = ask("read", { text, top: 10 });
  return { readings: [{ run: 0, step: run.step, ...(await answered) }], spans: [] };
}

export async function documents({ word, order, offset, count }) {
  const { titles } = await begun;
  const wanted = word.toLowerCase();
  const found = titles.documents.filter(({ text }) => text.toLowerCase().includes(wanted));
  if (order === "easiest") found.reverse();
  return { documents: found.slice(offset, offset + count), matching: found.length, total: titles.documents.length, note: titles.note };
}

export async function sections() {
  return (await begun).sections;
}

export async function* sample(question, signal) {
  await begun;
  const parts = [];
  let [told, stop, over] = [() => {}, null, false];
  const { id, answered } = ask("sample", question, (part) => {
    parts.push(part);
    told();
  });
  const end = () => {
    over = true;
    told();
  };
  answered.then(end, end);
  signal.addEventListener("abort", () => {
    worker.postMessage({ id, name: "stop" });
    stop = new DOMException("stopped", "AbortError");
    told();
  });
  for (;;) {
    while (parts.length) yield parts.shift();
    if (stop) throw stop;
    if (over) return void (await answered);
    await new Promise((resolve) => (told = resolve));
  }
}

// { passed, text }: whether the page gives what Python gave, as a sentence.
export async function check() {
  const { parity } = await begun;
  const { passed, titles, otherIds, worst, most } = await ask("check", parity).answered;
  const ids = otherIds ? `${otherIds} have other ids` : "all have the same ids";
  const found = `of ${titles} titles ${ids}, and losses differ by ${worst.toPrecision(1)} nats per character at most (allowed: ${most})`;
  if (passed) return { passed, text: `Checked against Python when this page opened: ${found}.` };
  return { passed, text: `Don't trust this page: checked against Python, ${found}. The browser computes otherwise, or the file is damaged.` };
}
