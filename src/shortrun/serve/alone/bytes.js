// Texts and their UTF-8, as strings of bytes: each character stands for the byte of its number.

export function bytesOf(text) {
  return Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
}

export function numbersOf(bytes) {
  return Uint8Array.from(bytes, (letter) => letter.charCodeAt(0));
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// The text, or null where the bytes are none.
export function textOf(bytes) {
  try {
    return strict.decode(numbersOf(bytes));
  } catch {
    return null;
  }
}
