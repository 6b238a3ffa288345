// The page: pictures on a shelf, a conversation for each, one answer at a time. Knows the elements of index.html.

import { ServerError, explanation, models, streamAnswer, useKey } from "./api.js";
import { Overlay } from "./overlay.js";
import { EXAMPLES, readPicture } from "./pictures.js";

const at = (id) => document.getElementById(id);
const overlay = new Overlay(at("shown"), at("overlay"));
const pictures = []; // { name, source, exchanges: [{ question, answer, done, element }] }
let current = null;
let running = null; // the AbortController of the answer under way

// ---- pictures

function addPicture(name, source) {
  const picture = { name, source, exchanges: [] };
  pictures.push(picture);
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", `Show ${name}`);
  button.append(Object.assign(new Image(), { src: source, alt: "" }));
  button.addEventListener("click", () => show(picture));
  picture.button = button;
  const item = document.createElement("li");
  item.append(button);
  at("shelf").append(item);
  show(picture);
  at("question").focus();
}

function show(picture) {
  if (running) stop();
  current = picture;
  hideOverlay();
  at("shown").src = picture.source;
  at("shown").alt = `Picture: ${picture.name}`;
  at("shown").hidden = false;
  at("frame").classList.remove("empty");
  for (const other of pictures) other.button.setAttribute("aria-current", String(other === picture));
  at("log").replaceChildren(...picture.exchanges.map((exchange) => exchange.element));
  at("hint").hidden = true;
  say("");
}

async function takeFiles(files) {
  for (const file of files) {
    try {
      addPicture(file.name || "pasted picture", await readPicture(file));
    } catch (error) {
      say(error.message, true);
    }
  }
}

at("pick").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => {
  takeFiles([...at("file").files]);
  at("file").value = ""; // the same file may be chosen again
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) {
    event.preventDefault();
    takeFiles([...event.clipboardData.files]);
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("frame").classList.add("over");
});
document.addEventListener("dragleave", () => at("frame").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("frame").classList.remove("over");
  takeFiles([...event.dataTransfer.files]);
});

function offerExamples() {
  for (const { name, file } of EXAMPLES) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Use the example ${name}`);
    button.append(Object.assign(new Image(), { src: file, alt: "" }));
    button.addEventListener("click", async () => {
      const blob = await (await fetch(file)).blob();
      takeFiles([new File([blob], name, { type: blob.type })]);
    });
    const item = document.createElement("li");
    item.append(button);
    at("examples").append(item);
  }
}

// ---- questions and answers

function settings(sampled) {
  const values = { temperature: Number(at("temperature").value), max_tokens: Number(at("max-tokens").value) };
  // Greedy decoding would give the same words again.
  if (sampled && values.temperature === 0) values.temperature = 0.7;
  if (sampled) values.seed = Math.floor(Math.random() * 2 ** 31);
  // As vLLM takes it, too.
  if (at("latents").value) values.chat_template_kwargs = { num_latents: Number(at("latents").value) };
  return values;
}

// The conversation up to and with one exchange, without its answer. Questions without an answer are left out: roles take
// turns, and a model that reads an empty answer of its own takes it for what it said.
function messagesFor(picture, exchange) {
  const messages = [];
  for (const past of picture.exchanges) {
    if (past !== exchange && !past.answer) continue;
    const text = { type: "text", text: past.question };
    const image = { type: "image_url", image_url: { url: picture.source } };
    messages.push({ role: "user", content: messages.length ? [text] : [image, text] });
    if (past === exchange) break;
    messages.push({ role: "assistant", content: past.answer });
  }
  return messages;
}

async function ask(question) {
  const element = at("exchange").content.cloneNode(true).firstElementChild;
  const exchange = { question, answer: "", element };
  element.querySelector(".question").textContent = question;
  element.querySelector(".again").addEventListener("click", () => answer(current, exchange, true));
  element.querySelector(".look").addEventListener("click", () => look(current, exchange));
  current.exchanges.push(exchange);
  at("log").append(element);
  await answer(current, exchange, false);
}

async function answer(picture, exchange, sampled) {
  if (running) return;
  const later = picture.exchanges.splice(picture.exchanges.indexOf(exchange) + 1);
  for (const { element } of later) element.remove(); // they followed from the answer that goes
  const line = exchange.element.querySelector(".answer");
  const figures = exchange.element.querySelector(".figures");
  exchange.answer = line.textContent = figures.textContent = "";
  line.className = "answer waiting";
  working(new AbortController());
  const start = performance.now();
  let first = null;
  try {
    const { finishReason, usage } = await streamAnswer(
      { model: at("model").value, messages: messagesFor(picture, exchange), settings: settings(sampled), signal: running.signal },
      (text) => {
        first ??= performance.now();
        exchange.answer += text;
        line.textContent = exchange.answer;
        exchange.element.scrollIntoView({ block: "nearest" });
      },
    );
    figures.textContent = describe(start, first, usage, finishReason);
    say("Answer complete.");
  } catch (error) {
    failed(error, exchange, line);
  } finally {
    line.classList.remove("waiting");
    working(null);
  }
}

function failed(error, exchange, line) {
  if (error.name === "AbortError") {
    exchange.element.querySelector(".figures").textContent = "stopped";
    say("Stopped.");
    return;
  }
  if (!(error instanceof ServerError)) throw error;
  exchange.answer = ""; // what is not shown any more is not sent, either
  line.textContent = error.message;
  line.classList.add("wrong");
  say("The question was not answered.", true);
  if (error.status === 401) at("key-dialog").showModal();
}

function describe(start, first, usage, finishReason) {
  const seconds = (until) => `${((until - start) / 1000).toFixed(2)} s`;
  const parts = [seconds(performance.now())];
  if (first !== null) parts.push(`first words after ${seconds(first)}`);
  if (usage) parts.push(`${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written`);
  if (finishReason === "length") parts.push("cut off: the longest answer is reached");
  return parts.join(" · ");
}

function working(controller) {
  running = controller;
  at("stop").hidden = controller === null;
  at("send").disabled = controller !== null;
  for (const button of document.querySelectorAll(".again, .look")) button.disabled = controller !== null;
  if (controller) say("Answering…");
}

function stop() {
  running?.abort();
}

at("stop").addEventListener("click", stop);
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (running || !question) return;
  if (!current) {
    say("Choose a picture first: drop one, paste one, or use an example.", true);
    return;
  }
  at("question").value = "";
  ask(question);
});
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) stop();
});

// ---- where did it look

async function look(picture, exchange) {
  if (running) return;
  working(new AbortController());
  say("Looking inside…");
  try {
    const { chat_template_kwargs } = settings(false);
    const content = [
      { type: "image_url", image_url: { url: picture.source } },
      { type: "text", text: exchange.question }, // on its own: what was said before is not looked into
    ];
    const found = await explanation({
      model: at("model").value,
      messages: [{ role: "user", content }],
      settings: chat_template_kwargs ? { chat_template_kwargs } : {},
      signal: running.signal,
    });
    overlay.take(found);
    at("layer").replaceChildren(...overlay.layers.map((layer, index) => new Option(layer.title, index)));
    at("looking").hidden = false;
    drawLayer();
    at("layer").focus();
    say(`Shown on the picture: ${exchange.question}`);
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else if (error instanceof ServerError) say(error.message, true);
    else throw error;
  } finally {
    working(null);
  }
}

function drawLayer() {
  at("looking-text").textContent = overlay.draw(Number(at("layer").value));
}

function hideOverlay() {
  overlay.hide();
  at("looking").hidden = true;
}

at("layer").addEventListener("change", drawLayer);
at("close-overlay").addEventListener("click", hideOverlay);
new ResizeObserver(() => at("looking").hidden || drawLayer()).observe(at("shown"));

// ---- the rest

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

at("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = shown === "dark" ? "light" : "dark";
  localStorage.setItem("fusionvl-theme", document.documentElement.dataset.theme);
});

at("key-dialog").addEventListener("close", () => {
  if (at("key-dialog").returnValue !== "use") return;
  useKey(at("key").value);
  at("key").value = "";
  listModels();
});

async function listModels() {
  try {
    const there = await models();
    at("model").replaceChildren(...there.map(({ name }) => new Option(name, name)));
    document.body.classList.toggle("unexplained", !there.some(({ explains }) => explains));
    say("");
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    if (error.status === 401) at("key-dialog").showModal();
    else say(error.message, true);
  }
}

const theme = localStorage.getItem("fusionvl-theme");
if (theme) document.documentElement.dataset.theme = theme;
offerExamples();
listModels();
