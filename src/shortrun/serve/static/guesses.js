// The likeliest tokens at a place, as bars that can be clicked.
import { fill, h } from "./dom.js";
import { nats, percent, tokenText } from "./format.js";

// What stands above the bars: what is next, or what had been expected where a token stands.
export function renderPlace(parent, reading, at) {
  const token = reading.tokens[at];
  const next = at === reading.tokens.length - 1;
  const title = next ? ["Next token"] : ["Instead of ", ...tokenText(token)];
  const told = next
    ? "Click one to take it."
    : `It came as number ${token.rank.toLocaleString("en")} with ${percent(token.probability)}: ${nats(token.surprisal)} nats.`;
  parent.querySelector("h4").replaceChildren(...title);
  parent.querySelector("p").textContent = told;
}

// take(guess) is called with the one that was clicked.
export function renderGuesses(parent, reading, at, take) {
  const { guesses, token, end } = { ...reading.tokens[at], end: at === reading.tokens.length - 1 };
  const most = guesses.length ? guesses[0].probability : 1;
  fill(
    parent,
    guesses,
    () =>
      h(
        "button",
        { type: "button", click: (event) => event.currentTarget.take() },
        h("span", { class: "token" }),
        h("span", { "aria-hidden": "true" }, h("div", { class: "bar" })),
        h("span", { class: "share" }),
      ),
    (button, guess, number) => {
      const can = guess.text !== null;
      button.take = () => can && take(guess);
      button.tabIndex = number === 0 ? 0 : -1;
      button.className = !end && guess.token === token ? "came" : "";
      button.setAttribute("aria-disabled", String(!can));
      button.title = can || guess.end ? "" : "a part of a character, which can't be taken alone";
      const [name, bar, share] = button.children;
      name.replaceChildren(...tokenText(guess));
      bar.firstElementChild.style.setProperty("--width", `${(100 * guess.probability) / most}%`);
      share.textContent = percent(guess.probability);
    },
  );
}
