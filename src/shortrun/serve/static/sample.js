// New documents, as they end.
import { h } from "./dom.js";

const find = (name) => document.getElementById(name);

export function sampleView(source, { runs, limits }, open, trouble) {
  const form = find("sample-form");
  const list = find("samples");
  const said = find("sample-said");
  const stop = find("sample-stop");
  let going = null;

  form.elements.prefix.maxLength = limits.prefix;
  form.elements.count.max = limits.samples;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    going?.abort();
    const mine = (going = new AbortController());
    const question = asked(form);
    list.replaceChildren();
    stop.hidden = false;
    if (runs[question.run].alone) find("sample-alone").hidden = false;
    else showCommand(runs[question.run].path, question);
    said.textContent = "sampling …";
    let found = 0;
    try {
      for await (const each of source.sample(question, mine.signal)) {
        insert(list, each, open);
        found += 1;
        said.textContent = `${found} of ${question.count}`;
      }
      trouble(null);
    } catch (error) {
      if (error.name === "AbortError") said.textContent = `stopped after ${found}`;
      else {
        said.textContent = "";
        trouble(error);
      }
    }
    if (going === mine) {
      going = null;
      stop.hidden = true;
    }
  });
  stop.addEventListener("click", () => going?.abort());
}

function asked(form) {
  const number = (field) => (field.value === "" ? null : Number(field.value));
  return {
    run: Number(form.elements.run.value || 0),
    prefix: form.elements.prefix.value,
    count: number(form.elements.count),
    temperature: number(form.elements.temperature),
    top_k: number(form.elements.top_k),
    top_p: number(form.elements.top_p),
    seed: number(form.elements.seed),
  };
}

// The short ones end first, so each goes to its place by number.
function insert(list, { number, text }, open) {
  const item = h(
    "li",
    { "data-number": number },
    h("span", { class: "number", "aria-hidden": "true" }, number),
    h("button", { type: "button", title: "Read it above", click: () => open(text) }, text || "(empty)"),
  );
  list.insertBefore(item, [...list.children].find((other) => Number(other.dataset.number) > number) ?? null);
}

function showCommand(path, question) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const safe = (text) => (/^[\w./-]+$/.test(text) ? text : quoted(text));
  const flags = [
    question.prefix && `--prefix=${quoted(question.prefix)}`,
    `--n ${question.count}`,
    question.temperature !== 1 && `--temperature ${question.temperature}`,
    question.top_k !== null && `--top-k ${question.top_k}`,
    question.top_p !== 1 && `--top-p ${question.top_p}`,
    `--seed ${question.seed}`,
  ];
  find("sample-command").hidden = false;
  find("sample-command").querySelector("code").textContent = ["shortrun sample", safe(path), ...flags.filter(Boolean)].join(" ");
}
