// How the model reads a text, as shortrun's view/reading.py has it: in the windows in which documents are scored.

const EOS_CHARACTERS = 5; // that a document's end counts for in nats per character

export class Reader {
  constructor(model, tokenizer) {
    this.model = model;
    this.tokenizer = tokenizer;
    this.rows = []; // of the last text, by the number of the window, so that typing computes what is new alone
  }

  // { nats, characters, loss, ids, tokens: [{ id, token, text, surprisal, probability, rank, guesses }] }
  read(text, top) {
    const { tokenizer } = this;
    const ids = tokenizer.encode(text);
    const places = this.places([tokenizer.eos, ...ids]);
    const added = [...tokenizer.texts(ids), ""];
    const tokens = [...ids, tokenizer.eos].map((id, at) => {
      const place = places[at];
      const surprisal = place.sum - place.logits_V[id];
      return {
        id,
        token: tokenizer.piece(id),
        text: added[at],
        surprisal,
        probability: Math.exp(-surprisal),
        rank: 1 + place.logits_V.reduce((many, logit) => many + (logit > place.logits_V[id]), 0),
        guesses: top ? likeliest(place, top).map((guess) => this.guess(guess, at === 0)) : [],
      };
    });
    const nats = tokens.reduce((total, token) => total + token.surprisal, 0);
    const characters = [...text].length + EOS_CHARACTERS;
    return { nats, characters, loss: nats / characters, ids, tokens };
  }

  // What the model expects after each input: { logits_V, sum: the logarithm of the sum of their exponentials }.
  places(inputs) {
    const found = [];
    const windows = windowsOf(inputs.length, this.model.config.block_size);
    windows.forEach(({ start, scored, stop }, number) => {
      found.push(...this.row(number, inputs.slice(start, stop)).slice(scored - start));
    });
    this.rows.length = windows.length;
    return found;
  }

  row(number, inputs) {
    const row = (this.rows[number] ??= { inputs: [], cache: this.model.newCache(), places: [] });
    let same = 0;
    while (same < row.places.length && same < inputs.length && row.inputs[same] === inputs[same]) same += 1;
    row.cache.length = row.places.length = same;
    row.inputs = inputs;
    if (same < inputs.length) {
      row.places.push(...this.model.forward(row.cache, inputs.slice(same)).map((logits_V) => ({ logits_V, sum: logSum(logits_V) })));
    }
    return row.places;
  }

  // A guess with the text that it adds: null where that is a part of a character, or the document's end.
  guess({ id, probability }, first) {
    const { tokenizer } = this;
    const token = tokenizer.piece(id);
    const none = id === tokenizer.eos || tokenizer.banned.includes(id) || tokenizer.isFallback(id);
    const text = none ? null : first ? tokenizer.texts([id])[0] : token;
    return { id, token, probability, text, end: id === tokenizer.eos };
  }
}

// Stretches of inputs, and the first of each that counts there, as shortrun's tokens/windows.py cuts them.
function windowsOf(length, block) {
  const stride = Math.max(Math.floor(block / 2), 1);
  const more = Math.ceil(Math.max(length - block, 0) / stride);
  return Array.from({ length: more + 1 }, (_, number) => {
    const start = number * stride;
    return { start, scored: number ? start - stride + block : 0, stop: Math.min(start + block, length) };
  });
}

function logSum(logits_V) {
  const most = logits_V.reduce((one, other) => Math.max(one, other));
  return most + Math.log(logits_V.reduce((total, logit) => total + Math.exp(logit - most), 0));
}

function likeliest({ logits_V, sum }, top) {
  const best = []; // ids, likeliest first
  for (let id = 0; id < logits_V.length; id++) {
    if (best.length === top && !(logits_V[id] > logits_V[best[top - 1]])) continue;
    let at = best.length;
    while (at && logits_V[best[at - 1]] < logits_V[id]) at -= 1;
    best.splice(at, 0, id);
    best.length = Math.min(best.length, top);
  }
  return best.map((id) => ({ id, probability: Math.exp(logits_V[id] - sum) }));
}
