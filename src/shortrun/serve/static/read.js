// The headline and its readings: typing, walking through tokens, taking predictions, moving through checkpoints.
import { h, settled, walk } from "./dom.js";
import { count, nats, percent } from "./format.js";
import { renderDifference } from "./difference.js";
import { renderGuesses, renderPlace } from "./guesses.js";
import { starts, tokenAt } from "./reading.js";
import { renderTokens } from "./tokens.js";
import { renderTraining } from "./training.js";

const LETTERS = ["A", "B"];
const find = (name) => document.getElementById(name);

// Returns { open(text) }, which shows a text.
export function readView(source, { runs, limits }, trouble) {
  const input = find("text");
  const views = runs.map((run, number) => runView(run, number, runs.length > 1));
  let latest = null; // the last answer, and the text that it is of
  let pinned = null; // the token that is looked at: { run, at, place }; null for what comes next
  let hovered = null;
  let asking = false;
  let again = false;

  input.maxLength = limits.characters;
  find("readings").className = `readings ${runs.length > 1 ? "two" : "one"}`;
  find("readings").replaceChildren(...views.map((view) => view.element));

  const say = settled(() => {
    if (!latest) return;
    const told = latest.readings.map((reading, number) => {
      const best = reading.tokens.at(-1).guesses.slice(0, 3);
      const name = runs.length > 1 ? `${LETTERS[number]}: ` : "";
      return `${name}${nats(reading.nats)} nats. Next: ${best.map((guess) => `${guess.end ? "end" : guess.token.trim() || "space"} ${percent(guess.probability)}`).join(", ")}`;
    });
    find("said").textContent = told.join(". ");
  }, 900);
  const overTraining = settled(() => views.forEach((view) => view.compareSteps(source, latest, lookedAt(view.number), trouble)), 300);

  // Asks for the newest text, one question at a time, so that fast typing does not queue.
  async function ask() {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    do {
      again = false;
      const text = input.value;
      const readers = views.map((view) => ({ run: view.number, step: view.step() }));
      try {
        const found = await source.read(text, readers);
        latest = { text, ...found };
        trouble(null);
        render();
        say();
        overTraining();
      } catch (error) {
        trouble(error);
      }
    } while (again);
    asking = false;
  }

  // By which token a reading is looked at.
  function lookedAt(number) {
    const looked = hovered ?? pinned;
    return (reading) => {
      if (!looked) return reading.tokens.length - 1;
      return looked.run === number ? Math.min(looked.at, reading.tokens.length - 1) : tokenAt(reading, looked.place);
    };
  }

  function render() {
    if (!latest) return;
    latest.readings.forEach((reading, number) => {
      const at = lookedAt(number)(reading);
      const place = (token) => ({ run: number, at: token, place: starts(reading)[token] });
      views[number].render(reading, at, {
        look: (token) => {
          pinned = token === reading.tokens.length - 1 ? null : place(token);
          hovered = null;
          render();
          overTraining();
        },
        hover: (token) => {
          hovered = token === null ? null : place(token);
          render();
        },
        take: (guess) => {
          set(latest.text.slice(0, starts(reading)[at]) + guess.text);
        },
      });
    });
    find("difference").hidden = latest.spans.length === 0;
    if (latest.spans.length) renderDifference(find("difference-sum"), find("difference-spans"), latest.spans, runs.map((run) => run.name));
  }

  function set(text) {
    input.value = text;
    pinned = hovered = null;
    ask();
  }

  function back() {
    pinned = hovered = null;
    render();
    input.focus();
  }

  input.addEventListener("input", () => {
    pinned = hovered = null;
    ask();
  });
  input.addEventListener("focus", () => {
    pinned = hovered = null;
    render();
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const to = { ArrowDown: views[0].guesses.firstElementChild, ArrowUp: views[0].tokens.lastElementChild }[event.key];
    if (!to) return;
    event.preventDefault();
    to.focus();
  });
  for (const view of views) {
    view.tokens.addEventListener("keydown", (event) => {
      if (walk(event, view.tokens, { next: "ArrowRight", before: "ArrowLeft" })) return;
      if (event.key === "Escape" || event.key === "ArrowUp") {
        event.preventDefault();
        back();
      } else if (event.key === "ArrowDown") {
        event.preventDefault();
        view.guesses.firstElementChild?.focus();
      }
    });
    view.tokens.addEventListener("mouseleave", () => {
      hovered = null;
      render();
    });
    view.guesses.addEventListener("keydown", (event) => {
      const first = document.activeElement === view.guesses.firstElementChild;
      if (event.key === "Escape" || (event.key === "ArrowUp" && first)) {
        event.preventDefault();
        back();
      } else walk(event, view.guesses, { next: "ArrowDown", before: "ArrowUp" });
    });
    view.onStep(ask);
  }
  ask();
  return {
    open(text) {
      set(text);
      input.focus({ preventScroll: true });
      find("read").scrollIntoView();
    },
  };
}

// The parts of the page that belong to one run.
function runView(run, number, two) {
  const id = `run-${number}`;
  const tokens = h("div", { class: "tokens", role: "toolbar", "aria-label": `Tokens of the headline, ${run.name}` });
  const place = h("div", { class: "place" }, h("h4", { id: `${id}-place` }), h("p"));
  const guesses = h("div", { class: "guesses", role: "toolbar", "aria-orientation": "vertical", "aria-labelledby": `${id}-place` });
  const sum = h("span", { class: "sum" });
  const step = h("input", { id: `${id}-step`, type: "range", min: 0, max: run.steps.length - 1, value: run.steps.indexOf(run.step) });
  const shown = h("output", { for: `${id}-step` });
  const body = h("tbody");
  const over = h(
    "details",
    {},
    h("summary", {}, "This headline over training"),
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, `How ${run.name} read this headline at each checkpoint`),
      h("thead", {}, h("tr", {}, ...["step", "nats per character", "likeliest there"].map((name) => h("th", { scope: "col" }, name)))),
      body,
    ),
  );
  const of = run.of_steps ? ` of ${count(run.of_steps)}` : "";
  const many = run.steps.length > 1;
  const checkpoint = h(
    "div",
    { class: "checkpoint", hidden: Boolean(run.alone) },
    h("label", { for: `${id}-step` }, "Checkpoint", shown),
    step,
    many ? over : h("p", { class: "hint" }, "This run has kept no other checkpoint."),
  );
  step.disabled = !many;
  const letter = two ? h("span", { class: "letter" }, LETTERS[number]) : null;
  const element = h(
    "article",
    { class: `reading ${LETTERS[number].toLowerCase()}`, "aria-labelledby": `${id}-name` },
    h("header", {}, h("h3", { id: `${id}-name` }, letter, run.name), h("span", { class: "faint" }, about(run)), sum),
    tokens,
    h("div", { class: "below" }, h("div", {}, place, guesses), checkpoint),
  );
  let rows = run.steps.map((value) => ({ step: value, reading: null }));
  let read = null; // the text that they are of
  let place_ = () => 0;

  function showStep() {
    const told = `step ${count(run.steps[step.value])}${of}`;
    shown.textContent = told;
    step.setAttribute("aria-valuetext", told);
  }
  showStep();

  return {
    element,
    number,
    tokens,
    guesses,
    step: () => run.steps[step.value],
    onStep(action) {
      step.addEventListener("input", () => {
        showStep();
        action();
      });
      over.addEventListener("toggle", action);
    },
    render(reading, at, on) {
      sum.textContent = `${nats(reading.nats)} nats, ${reading.loss.toFixed(3)} per character`;
      renderTokens(tokens, reading, at, on);
      renderPlace(place, reading, at);
      renderGuesses(guesses, reading, at, on.take);
    },
    // Reads the text by every checkpoint, one after the other, while the table is open.
    async compareSteps(source, latest, at, trouble) {
      place_ = at;
      if (!over.open || !latest) return;
      if (read !== latest.text) {
        read = latest.text;
        rows = run.steps.map((value) => ({ step: value, reading: null }));
        const mine = rows;
        for (const row of mine) {
          try {
            row.reading = (await source.read(read, [{ run: number, step: row.step }])).readings[0];
          } catch (error) {
            trouble(error);
            return;
          }
          if (mine !== rows) return; // another text has been typed
          renderTraining(body, rows, place_);
        }
      }
      renderTraining(body, rows, place_);
    },
  };
}

function about(run) {
  const state = run.complete ? "" : run.of_steps ? `, at step ${count(run.step)} of ${count(run.of_steps)}` : `, at step ${count(run.step)}`;
  const loss = run.loss === null ? "" : `, loss ${run.loss.toFixed(4)}`;
  return `${(run.parameters / 1e6).toFixed(1)}M parameters${loss}${state}`;
}
