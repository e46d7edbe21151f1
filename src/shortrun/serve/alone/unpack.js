// What is packed into the page: base64 of gzip.

export async function unpacked(base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// float32 matrices from float16 numbers: all their upper bytes, then all lower ones, which pack better. sizes: [[name, length]].
export function matrices(bytes, sizes) {
  const half = bytes.length / 2;
  const values = Float32Array.from({ length: 2 ** 16 }, (_, bits) => ofHalf(bits));
  const found = {};
  let at = 0;
  for (const [name, length] of sizes) {
    const matrix = (found[name] = new Float32Array(length));
    for (let i = 0; i < length; i++, at++) matrix[i] = values[(bytes[at] << 8) | bytes[half + at]];
  }
  return found;
}

function ofHalf(bits) {
  const sign = bits >> 15 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  return exponent ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024) : sign * 2 ** -14 * (fraction / 1024);
}
