// Validation documents, from the hardest to the easiest, filtered by a word.
import { h, settled } from "./dom.js";
import { count } from "./format.js";

const find = (name) => document.getElementById(name);
const PAGE = 15;

export function browseView(source, { limits }, open, trouble) {
  const form = find("browse-form");
  const list = find("documents");
  const said = find("browse-said");
  const more = find("more");
  let going = null;

  form.elements.word.maxLength = limits.word;
  async function show(offset) {
    going?.abort();
    going = new AbortController();
    const word = form.elements.word.value;
    const question = { run: Number(form.elements.run.value || 0), word, order: form.elements.order.value, offset, count: PAGE };
    try {
      const found = await source.documents(question, going.signal);
      const items = found.documents.map((each) => item(each, open));
      if (offset) list.append(...items);
      else list.replaceChildren(...items);
      if (offset) items[0]?.querySelector("button").focus();
      const of = word ? `${count(found.matching)} of ${count(found.total)} titles contain “${word}”` : `${count(found.total)} titles`;
      said.textContent = `${of}, in nats per character. ${found.note}`;
      more.hidden = list.children.length >= found.matching;
    } catch (error) {
      if (error.name === "AbortError") return;
      said.textContent = error.message;
      more.hidden = true;
      list.replaceChildren();
    }
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", settled(() => show(0), 200));
  more.addEventListener("click", () => show(list.children.length));
  said.textContent = "reading the titles …";
  return { show: () => show(0) };
}

function item({ number, text, loss }, open) {
  const told = loss === null ? `no. ${number}` : loss.toFixed(3);
  return h(
    "li",
    {},
    h("span", { class: "number" }, told),
    h("button", { type: "button", title: "Read it above", click: () => open(text) }, text),
  );
}
