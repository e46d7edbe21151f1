// New documents, as shortrun's model/generate.py draws them, but for the random numbers, which come from a generator of ours.

// Yields { number, text } for each, after null for every token. The n-th is decided by the seed, n and what is asked for.
export function* documents(model, tokenizer, { prefix, count, temperature, top_k, top_p, seed }) {
  const { block_size: block } = model.config;
  const begun = [tokenizer.eos, ...tokenizer.encode(prefix)];
  const most = begun.length + 2 * block;
  const { start, logits_V: first_V } = begun.length > block ? {} : prompt(model, begun);
  for (let number = 0; number < count; number++) {
    const uniform = generator(seed, number);
    const ids = [...begun];
    const cache = start ? model.copied(start) : null;
    let logits_V = first_V;
    while (ids.length < most) {
      // past the block, the window slides: every token has a new place
      if (ids.length > block) logits_V = model.forward(model.newCache(), ids.slice(-block)).at(-1);
      else if (ids.length > begun.length) [logits_V] = model.forward(cache, [ids.at(-1)]);
      const id = drawn(logits_V, { banned: tokenizer.banned, temperature, top_k, top_p }, uniform());
      if (id === tokenizer.eos) break;
      ids.push(id);
      yield null;
    }
    yield { number, text: tokenizer.texts(ids.slice(1)).join("") };
  }
}

function prompt(model, ids) {
  const start = model.newCache();
  return { logits_V: model.forward(start, ids).at(-1), start };
}

// The token at which the cumulative probability passes `uniform`, from [0, 1).
function drawn(logits_V, { banned, temperature, top_k, top_p }, uniform) {
  const scaled_V = Float64Array.from(logits_V);
  for (const id of banned) scaled_V[id] = -Infinity;
  const most = scaled_V.reduce((one, other) => Math.max(one, other));
  if (temperature === 0) return scaled_V.indexOf(most);
  const weights_V = scaled_V.map((logit) => Math.exp((logit - most) / temperature));
  const V = weights_V.length;
  const k = Math.min(top_k ?? V, V);
  if (k < V || top_p < 1) leave(weights_V, scaled_V, k, top_p);
  const total = weights_V.reduce((sum, weight) => sum + weight, 0);
  let passed = 0;
  for (let id = 0; id < V; id++) {
    passed += weights_V[id];
    if (passed > uniform * total) return id;
  }
  return weights_V.findLastIndex((weight) => weight > 0);
}

// Leaves the k likeliest, and of these the fewest that together have top_p of what they have; of equal ones those of lower ids.
function leave(weights_V, scaled_V, k, top_p) {
  const order = Array.from(scaled_V.keys()).sort((one, other) => scaled_V[other] - scaled_V[one] || one - other);
  for (const id of order.slice(k)) weights_V[id] = 0;
  if (top_p === 1) return;
  const total = order.reduce((sum, id) => sum + weights_V[id], 0);
  let before = 0;
  for (const id of order) {
    const weight = weights_V[id];
    if (before >= top_p * total) weights_V[id] = 0;
    before += weight;
  }
}

// Numbers from [0, 1), of 53 bits: Doty-Humphrey's sfc32, begun with a seed below 2^53 and a number.
function generator(seed, number) {
  let [a, b, c, counter] = [seed >>> 0, Math.floor(seed / 2 ** 32), number, 1];
  function bits() {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }
  for (let i = 0; i < 12; i++) bits(); // until every bit of the seed has reached all others
  return () => ((bits() >>> 5) * 2 ** 26 + (bits() >>> 6)) / 2 ** 53;
}
