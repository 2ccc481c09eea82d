// Requests to this server, and to no other.

const KEY = "prumerge-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** What the server says is wrong, in one sentence; `status` is that of HTTP, 0 where nobody answered. */
export class Refused extends Error {
  constructor(message, status, code) {
    super(message);
    Object.assign(this, { status, code });
  }
}

export const get = async (path) => (await send(path)).json();

export const post = async (path, body, signal) => (await send(path, body, signal)).json();

/** The events of a streamed answer, as objects; raises Refused, also for an error that comes as an event. */
export async function* events(path, body, signal) {
  const reader = (await send(path, body, signal)).body.getReader();
  const decoder = new TextDecoder();
  for (let held = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    held += decoder.decode(value, { stream: true });
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Refused(event.error.message, 200, event.error.code);
      yield event;
    }
  }
}

async function send(path, body, signal) {
  const headers = body ? { "content-type": "application/json" } : {};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the server does not answer; look whether it still runs", 0);
  }
  if (response.ok) return response;
  const found = await response.json().catch(() => null);
  const said = found?.error ?? { message: `the server answers with status ${response.status}` };
  throw new Refused(said.message, response.status, said.code);
}
