// What can be said of a reading: where its tokens begin, and which one stands at a place. Places are offsets in the text.

export function starts(reading) {
  const found = [];
  let place = 0;
  for (const token of reading.tokens) {
    found.push(place);
    place += token.text.length;
  }
  return found;
}

// The number of the token that holds a place; the end is the last token.
export function tokenAt(reading, place) {
  const begins = starts(reading);
  let found = 0;
  begins.forEach((begin, at) => {
    if (begin <= place && (begin > begins[found] || at === 0)) found = at;
  });
  return found;
}

// Which reading was less surprised by each part, and by how much; a difference that rounds to 0.0 is nobody's.
export function better(spans) {
  return spans.map(({ text, nats: [first, second] }) => {
    const by = Math.abs(first - second);
    return { text, by, who: by < 0.05 ? null : first < second ? 0 : 1 };
  });
}
