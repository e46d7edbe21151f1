// The GPT of shortrun's model/, one row at a time, with a cache of keys and values. Weights and states are float32; sums inside
// a product are doubles, which JavaScript adds up faster.
//
// Shapes: T positions, D d_model, H heads of K channels, S positions seen, V vocabulary, E width of the embeddings. A matrix
// is a Float32Array, row after row.

const NORM_EPS = 1e-5;
const HEAD_NORM_EPS = 1.1920928955078125e-7; // float32's, which torch takes where none is given

export class Model {
  // config: what page_model.py tells of the model. weights: Float32Array by torch's name.
  constructor(config, weights) {
    this.config = config;
    this.weights = weights;
    const K = config.d_model / config.n_head;
    if (config.positions === "rotary") this.turns = turns(config.block_size, K, config.rope_base);
    const up = weights["emb_up.weight"];
    if (up && !weights["head.weight"]) this.down_ED = transposed(up, config.d_model, config.embedding_width);
  }

  // Of one row: what it has seen so far. Set `length` back to forget its end.
  newCache() {
    const size = this.config.block_size * this.config.d_model;
    const layer = () => ({ keys_SD: new Float32Array(size), values_SD: new Float32Array(size) });
    return { length: 0, layers: Array.from({ length: this.config.n_layer }, layer) };
  }

  // A copy that goes on by itself.
  copied(cache) {
    const layers = cache.layers.map((layer) => ({ keys_SD: layer.keys_SD.slice(), values_SD: layer.values_SD.slice() }));
    return { length: cache.length, layers };
  }

  // The logits_V after each of some ids, which go on from what the cache holds, and join it.
  forward(cache, ids) {
    const T = ids.length;
    const x_TD = this.embedded(ids, cache.length);
    for (let n = 0; n < this.config.n_layer; n++) {
      const at = `blocks.${n}.`;
      const seen_TD = this.normed(`${at}ln1`, x_TD, T);
      const attended_TD = this.attended(at, cache.layers[n], cache.length, seen_TD, T);
      if (this.config.block === "parallel") {
        add(x_TD, attended_TD);
        add(x_TD, this.mlp(at, seen_TD, T));
      } else {
        add(x_TD, attended_TD);
        add(x_TD, this.mlp(at, this.normed(`${at}ln2`, x_TD, T), T));
      }
    }
    cache.length += T;
    let hidden = this.normed("ln_f", x_TD, T);
    if (this.down_ED) hidden = linear(hidden, T, this.down_ED, null, this.config.embedding_width);
    const head = this.weights["head.weight"] ?? this.weights["token_emb.weight"];
    const { vocab_size: V } = this.config;
    const logits_TV = linear(hidden, T, head, null, V);
    return ids.map((_, t) => logits_TV.subarray(t * V, (t + 1) * V));
  }

  embedded(ids, start) {
    const { d_model: D, embedding_width, embedding_scale } = this.config;
    const E = embedding_width ?? D;
    const table = this.weights["token_emb.weight"];
    let x = new Float32Array(ids.length * E);
    ids.forEach((id, t) => x.set(table.subarray(id * E, (id + 1) * E), t * E));
    if (embedding_width) x = linear(x, ids.length, this.weights["emb_up.weight"], null, D);
    if (embedding_scale !== 1) x.forEach((value, i) => (x[i] = value * embedding_scale));
    const places = this.weights.pos_emb;
    if (places) add(x, places.subarray(start * D, (start + ids.length) * D));
    return x;
  }

  // A linear map by its name.
  map(name, x, T, scale) {
    const weight = this.weights[`${name}.weight`];
    const width = weight.length / (x.length / T);
    const y = linear(x, T, weight, this.weights[`${name}.bias`] ?? null, width);
    const factor = this.weights[`${scale}.factor`]; // LayerScale
    if (factor) y.forEach((value, i) => (y[i] = value * factor[i % width]));
    return y;
  }

  normed(name, x, T) {
    const weight = this.weights[`${name}.weight`];
    if (this.config.norm === "rmsnorm") return rmsNorm(x.slice(), weight, NORM_EPS);
    return layerNorm(x, T, weight, this.weights[`${name}.bias`] ?? null);
  }

  attended(at, { keys_SD, values_SD }, start, seen_TD, T) {
    const { d_model: D, n_head: H } = this.config;
    const K = D / H;
    const qkv = this.map(`${at}attn.qkv`, seen_TD, T);
    const gates_TH = this.weights[`${at}attn.gate.weight`] ? this.map(`${at}attn.gate`, seen_TD, T) : null;
    const y_TD = new Float32Array(T * D);
    for (let t = 0; t < T; t++) {
      const place = start + t;
      const [q_D, k_D, v_D] = [0, 1, 2].map((part) => qkv.subarray((3 * t + part) * D, (3 * t + part + 1) * D));
      const q_norm = this.weights[`${at}attn.q_norm.weight`];
      if (q_norm) {
        rmsNorm(q_D, q_norm, HEAD_NORM_EPS);
        rmsNorm(k_D, this.weights[`${at}attn.k_norm.weight`], HEAD_NORM_EPS);
      }
      if (this.turns) {
        turn(q_D, this.turns[place], K);
        turn(k_D, this.turns[place], K);
      }
      keys_SD.set(k_D, place * D);
      values_SD.set(v_D, place * D);
      for (let h = 0; h < H; h++) {
        const gate = gates_TH ? 1 / (1 + Math.exp(-gates_TH[t * H + h])) : 1;
        attend(y_TD, t * D + h * K, q_D, keys_SD, values_SD, { place, first: h * K, K, D, gate });
      }
    }
    return this.map(`${at}attn.proj`, y_TD, T, `${at}scale1`);
  }

  mlp(at, seen_TD, T) {
    if (this.config.mlp === "swiglu") {
      const both = this.map(`${at}mlp.gate_value`, seen_TD, T);
      const width = both.length / T / 2;
      const inner = new Float32Array(T * width);
      for (let i = 0; i < inner.length; i++) {
        const [t, column] = [Math.floor(i / width), i % width];
        const gate = both[2 * t * width + column];
        inner[i] = (gate / (1 + Math.exp(-gate))) * both[(2 * t + 1) * width + column];
      }
      return this.map(`${at}mlp.to_stream`, inner, T, `${at}scale2`);
    }
    const inner = this.map(`${at}mlp.net.0`, seen_TD, T);
    const activation = { gelu, relu2: (value) => (value > 0 ? value * value : 0) }[this.config.mlp];
    for (let i = 0; i < inner.length; i++) inner[i] = activation(inner[i]);
    return this.map(`${at}mlp.net.2`, inner, T, `${at}scale2`);
  }
}

// y = x w^T + b for each of T rows of x.
function linear(x, T, weight, bias, O) {
  const I = x.length / T;
  const whole = I - (I % 4);
  const y = new Float32Array(T * O);
  for (let o = 0; o < O; o++) {
    const row = o * I;
    for (let t = 0; t < T; t++) {
      const from = t * I;
      let [a, b, c, d] = [0, 0, 0, 0];
      for (let i = 0; i < whole; i += 4) {
        a += weight[row + i] * x[from + i];
        b += weight[row + i + 1] * x[from + i + 1];
        c += weight[row + i + 2] * x[from + i + 2];
        d += weight[row + i + 3] * x[from + i + 3];
      }
      for (let i = whole; i < I; i++) a += weight[row + i] * x[from + i];
      y[t * O + o] = a + b + c + d + (bias ? bias[o] : 0);
    }
  }
  return y;
}

function add(x, y) {
  for (let i = 0; i < x.length; i++) x[i] += y[i];
}

function layerNorm(x, T, weight, bias) {
  const D = weight.length;
  const y = new Float32Array(x.length);
  for (let t = 0; t < T; t++) {
    let mean = 0;
    for (let i = 0; i < D; i++) mean += x[t * D + i] / D;
    let variance = 0;
    for (let i = 0; i < D; i++) variance += (x[t * D + i] - mean) ** 2 / D;
    const scale = 1 / Math.sqrt(variance + NORM_EPS);
    for (let i = 0; i < D; i++) y[t * D + i] = (x[t * D + i] - mean) * scale * weight[i] + (bias ? bias[i] : 0);
  }
  return y;
}

// In place, each stretch as long as `weight` by itself.
function rmsNorm(x, weight, eps) {
  const width = weight.length;
  for (let from = 0; from < x.length; from += width) {
    let square = 0;
    for (let i = 0; i < width; i++) square += x[from + i] ** 2;
    const scale = 1 / Math.sqrt(square / width + eps);
    for (let i = 0; i < width; i++) x[from + i] *= scale * weight[i];
  }
  return x;
}

// For each place the cosine and sine of each pair's angle.
function turns(places, K, base) {
  const frequencies = Array.from({ length: K / 2 }, (_, i) => base ** ((-2 * i) / K));
  return Array.from({ length: places }, (_, place) => ({
    cos: Float32Array.from(frequencies, (frequency) => Math.cos(place * frequency)),
    sin: Float32Array.from(frequencies, (frequency) => Math.sin(place * frequency)),
  }));
}

// Turns channel pairs (i, i + K/2) of each head, in place.
function turn(x_D, { cos, sin }, K) {
  for (let head = 0; head < x_D.length; head += K) {
    for (let i = 0; i < K / 2; i++) {
      const [first, second] = [x_D[head + i], x_D[head + i + K / 2]];
      x_D[head + i] = first * cos[i] - second * sin[i];
      x_D[head + i + K / 2] = second * cos[i] + first * sin[i];
    }
  }
}

// Writes one head's weighted mean of the values up to `place` into y, from `at` on.
function attend(y, at, q_D, keys_SD, values_SD, { place, first, K, D, gate }) {
  const scores_S = new Float32Array(place + 1);
  let most = -Infinity;
  for (let s = 0; s <= place; s++) {
    let score = 0;
    for (let i = 0; i < K; i++) score += q_D[first + i] * keys_SD[s * D + first + i];
    scores_S[s] = score / Math.sqrt(K);
    if (scores_S[s] > most) most = scores_S[s];
  }
  let sum = 0;
  for (let s = 0; s <= place; s++) {
    scores_S[s] = Math.exp(scores_S[s] - most);
    sum += scores_S[s];
  }
  for (let s = 0; s <= place; s++) {
    const weight = (scores_S[s] / sum) * gate;
    for (let i = 0; i < K; i++) y[at + i] += weight * values_SD[s * D + first + i];
  }
}

// x times the normal distribution up to x; erf by formula 7.1.26 of Abramowitz and Stegun, whose error is below 1.5e-7.
function gelu(x) {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * z);
  const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * Math.exp(-z * z);
  return 0.5 * x * (x < 0 ? tail : 2 - tail);
}

function transposed(matrix, rows, columns) {
  const found = new Float32Array(matrix.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) found[column * rows + row] = matrix[row * columns + column];
  }
  return found;
}
