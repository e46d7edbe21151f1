// A text as a row of tokens, each in the colour of its surprisal.
import { fill, h } from "./dom.js";
import { level, nats, percent } from "./format.js";

// at: the number of the token that is looked at. on: { look(at), hover(at or null) }.
export function renderTokens(parent, reading, at, on) {
  const last = reading.tokens.length - 1;
  fill(
    parent,
    reading.tokens,
    (number) =>
      h("button", {
        type: "button",
        focus: ({ currentTarget }) => currentTarget.on.look(number),
        click: ({ currentTarget }) => currentTarget.focus(), // Safari does not focus a button that is clicked
        mouseenter: ({ currentTarget }) => currentTarget.on.hover(number),
      }),
    (button, token, number) => {
      button.on = on; // a button outlives the text that it was made for
      const part = number < last && token.text === "";
      button.className = [level(token.surprisal), part && "part", number === last && "end"].filter(Boolean).join(" ");
      button.textContent = number === last ? "end" : part ? token.token : token.text;
      button.tabIndex = number === at ? 0 : -1;
      button.setAttribute("aria-pressed", String(number === at));
      const name = number === last ? "end" : token.token.trim() || "space";
      button.setAttribute(
        "aria-label",
        `${name}, ${nats(token.surprisal)} nats, ${percent(token.probability)}, rank ${token.rank}`,
      );
    },
  );
}
