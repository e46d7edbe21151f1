// What every tokenizer does, as shortrun's tokens/tokenizer.py says it: a text to ids, and what each id adds to a text.
// A token is a string of bytes (bytes.js).
import { bpe } from "./bpe.js";
import { bytesOf, numbersOf, textOf } from "./bytes.js";
import { pieces } from "./pieces.js";

const KINDS = { bpe, pieces };

// facts: what page_tokenizer.py tells of it. Returns { eos, banned, encode, piece, texts, isFallback }.
export function tokenizerOf(facts) {
  const { tokens, eos, pad, unk } = facts;
  const prefix = facts.prefix ? " " : "";
  const fallback = new Set(facts.bytes ?? []);
  const idsOf = KINDS[facts.kind](facts);

  // Ids of a text; throws where they don't give it back exactly.
  function encode(text) {
    if (text === "") return [];
    const ids = idsOf(prefix + text);
    if (ids.includes(unk) || ids.map((id) => tokens[id]).join("") !== bytesOf(prefix + text)) {
      throw new Error("The run's tokenizer can't give this text back exactly, so it is not read.");
    }
    return ids;
  }

  // What each id of a document adds to its text. A character of several ids is added by the last of them.
  function texts(ids) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const found = ids.map((id) => decoder.decode(numbersOf(tokens[id]), { stream: true }));
    if (found.length) found[found.length - 1] += decoder.decode();
    if (found.length && prefix) found[0] = found[0].replace(/^ /, "");
    return found;
  }

  return {
    eos,
    banned: [pad, unk].filter((id) => id !== null),
    encode,
    texts,
    piece: (id) => shown(tokens[id]),
    isFallback: (id) => fallback.has(id) || textOf(tokens[id]) === null,
  };
}

// A token as a person reads it; bytes that are no whole character as "\xe2".
function shown(token) {
  const whole = textOf(token);
  if (whole !== null) return whole;
  let text = "";
  for (let at = 0; at < token.length; ) {
    const length = [1, 2, 3, 4].find((many) => at + many <= token.length && textOf(token.slice(at, at + many)) !== null);
    text += length ? textOf(token.slice(at, at + length)) : `\\x${token.charCodeAt(at).toString(16).padStart(2, "0")}`;
    at += length ?? 1;
  }
  return text;
}
