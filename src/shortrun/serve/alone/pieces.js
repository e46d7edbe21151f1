// sentencepiece's tokenizers: the likeliest way to cut a text into pieces, or its characters; what has no piece is spelled in bytes.
//
// Scores are added up as sentencepiece does it, in doubles that are kept as float32, so that ties fall as they do there.
import { bytesOf, textOf } from "./bytes.js";

const SPACE = "\u2581"; // sentencepiece's own mark for a space; in a text it is spelled in bytes
const WHOLE = -0.1; // sentencepiece's score of a piece that is never split

// facts: { tokens, others: ids of those that no text is spelled with, scores, wholes: ids of what is never split, bytes: ids of
// the 256, unknown: the score of a character that has no piece, model: "unigram" or "character" }.
export function pieces({ tokens, others, scores, wholes, bytes, unknown, model }) {
  const skipped = new Set(others);
  const ids = new Map(tokens.map((token, id) => [textOf(token), id]).filter(([, id]) => !skipped.has(id)));
  const never = new Set(wholes);
  const scoreOf = (id) => (never.has(id) ? WHOLE : Math.fround(scores[id]));
  const longest = [...ids.keys()].reduce((most, text) => Math.max(most, text.length), 1);
  const spelled = (text) => [...bytesOf(text)].map((byte) => bytes[byte.charCodeAt(0)]);

  function likeliest(text) {
    const best = new Float32Array(text.length + 1);
    const from = new Int32Array(text.length + 1).fill(-1);
    const by = new Int32Array(text.length + 1).fill(-1);
    const offer = (start, end, id, score) => {
      if (from[end] !== -1 && !(score > best[end])) return;
      best[end] = score;
      from[end] = start;
      by[end] = id;
    };
    for (let start = 0; start < text.length; ) {
      const next = start + String.fromCodePoint(text.codePointAt(start)).length;
      let single = false;
      for (let end = start + 1; end <= Math.min(text.length, start + longest); end++) {
        const id = ids.get(text.slice(start, end));
        if (id === undefined) continue;
        offer(start, end, id, scoreOf(id) + best[start]);
        single ||= end === next;
      }
      if (!single) offer(start, next, -1, Math.fround(unknown + best[start]));
      start = next;
    }
    const found = [];
    for (let end = text.length; end > 0; end = from[end]) {
      found.push(by[end] < 0 ? spelled(text.slice(from[end], end)) : [by[end]]);
    }
    return found.reverse().flat();
  }

  // A whole piece where one stands, the longest first, or else a character.
  function characters(text) {
    const found = [];
    for (let start = 0; start < text.length; ) {
      let end = start + String.fromCodePoint(text.codePointAt(start)).length;
      for (let further = start + 1; further <= Math.min(text.length, start + longest); further++) {
        if (never.has(ids.get(text.slice(start, further)))) end = Math.max(end, further);
      }
      const part = text.slice(start, end);
      found.push(...(ids.has(part) ? [ids.get(part)] : spelled(part)));
      start = end;
    }
    return found;
  }

  const encode = model === "character" ? characters : likeliest;
  return (text) => text.split(SPACE).flatMap((part, at) => [...(at ? spelled(SPACE) : []), ...encode(part)]);
}
