// Byte-level BPE, as the `tokenizers` library does it: words by a pattern, then the pairs of their bytes merged, the earliest
// learned first.
import { bytesOf } from "./bytes.js";

// facts: { tokens, merges: [a, b, a, b ...], words: a pattern, whole: whether a word that is a token needs no merges, unk }.
export function bpe({ tokens, merges, words, whole, specials, unk }) {
  const named = new Set(specials);
  const ids = new Map(tokens.map((token, id) => [token, id]).filter(([, id]) => !named.has(id)));
  const ranks = new Map();
  for (let rank = 0; rank < merges.length / 2; rank++) ranks.set(pair(merges[2 * rank], merges[2 * rank + 1]), rank);
  const pattern = new RegExp(words, "gu");

  function pair(first, second) {
    return first * tokens.length + second;
  }

  function word(text) {
    const bytes = bytesOf(text);
    if (whole && ids.has(bytes)) return [ids.get(bytes)];
    const parts = [...bytes].map((byte) => ids.get(byte) ?? unk).filter((id) => id !== null);
    for (;;) {
      let [best, at] = [Infinity, -1];
      for (let i = 0; i + 1 < parts.length; i++) {
        const rank = ranks.get(pair(parts[i], parts[i + 1])) ?? Infinity;
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) return parts;
      parts.splice(at, 2, ids.get(tokens[parts[at]] + tokens[parts[at + 1]]));
    }
  }

  return (text) => cut(text, pattern).flatMap(word);
}

// The matches of a pattern and what lies between them.
function cut(text, pattern) {
  const found = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) found.push(text.slice(end, match.index));
    if (match[0]) found.push(match[0]);
    end = match.index + match[0].length;
  }
  if (end < text.length) found.push(text.slice(end));
  return found;
}
