// The server as the page sees it: models, streamed answers, explanations. Knows HTTP and the OpenAI shapes, no page.

export class ServerError extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let apiKey = sessionStorage.getItem("fusionvl-key");

export function useKey(key) {
  apiKey = key;
  sessionStorage.setItem("fusionvl-key", key);
}

async function call(path, { body, signal } = {}) {
  const headers = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is it still running?", 0, "unreachable");
  }
  if (!response.ok) {
    const shape = await response.json().catch(() => ({}));
    throw new ServerError(shape.error?.message ?? `The server answered ${response.status}.`, response.status, shape.error?.code);
  }
  return response;
}

// What to throw for an error while a response is read: browsers tell a broken connection as a TypeError or the like.
function whileReading(error) {
  if (error.name === "AbortError") return error;
  return new ServerError("The answer broke off: the server closed the connection.", 0, "broken_off");
}

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    throw whileReading(error);
  }
}

// [{ name, explains }]: whether the server can say where a model looked; others than ours do not tell.
export async function models() {
  const list = await json(await call("v1/models"));
  return list.data.map((model) => ({ name: model.id, explains: model.explains === true }));
}

// Calls onText with each piece; returns { finishReason, usage }. Aborting the signal stops the server's work, too.
export async function streamAnswer({ model, messages, settings, signal }, onText) {
  const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...settings };
  const response = await call("v1/chat/completions", { body, signal });
  let finishReason = null;
  let usage = null;
  for await (const event of events(response.body)) {
    if (event.error) throw new ServerError(event.error.message, response.status, event.error.code);
    const choice = event.choices?.[0];
    if (choice?.delta?.content) onText(choice.delta.content);
    finishReason = choice?.finish_reason ?? finishReason;
    usage = event.usage ?? usage;
  }
  if (finishReason === null) throw whileReading(new Error("the stream ended early"));
  return { finishReason, usage };
}

export async function explanation({ model, messages, settings, signal }) {
  return json(await call("v1/explain", { body: { model, messages, ...settings }, signal }));
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw whileReading(error);
    });
    if (done) return;
    const blocks = (pending + value).split(/\r?\n\r?\n/);
    pending = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
