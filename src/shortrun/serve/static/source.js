// Where predictions come from: this server. Another source (alone/source.js) has the same functions, and may have `check`.

async function answer(path, question, signal) {
  const more = question === undefined ? {} : { method: "POST", body: JSON.stringify(question), headers: { "Content-Type": "application/json" } };
  const response = await fetch(path, { ...more, signal });
  if (!response.ok) throw new Error(await sentence(response));
  return response;
}

async function sentence(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `The server answers ${response.status}`;
  }
}

// What is said of an error.
export const explained = (error) => (error instanceof TypeError ? "The server can't be reached. Is it still running?" : error.message);

// { limits, runs: [{ name, step, steps, ... }] }
export const runs = async () => (await answer("api/runs")).json();

// { readings: [{ run, step, nats, loss, tokens: [{ text, surprisal, rank, guesses }] }], spans: [{ text, nats }] }
export const read = async (text, readers) => (await answer("api/read", { text, readers })).json();

// { documents: [{ number, text, loss }], matching, total, note }
export const documents = async (question, signal) => (await answer("api/documents", question, signal)).json();

// [{ title, blocks }]
export const sections = async () => (await (await answer("api/sections")).json()).sections;

// { number, text } for each new document, as they end.
export async function* sample(question, signal) {
  const response = await answer("api/sample", question, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let whole = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done && whole) return;
    if (done) throw new Error("The server has ended before all titles were there");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const told = JSON.parse(line);
      if (told.error) throw new Error(told.error);
      if (told.done) whole = true;
      else yield told;
    }
  }
}
