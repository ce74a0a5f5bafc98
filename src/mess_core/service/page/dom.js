// Small helpers: elements, times, requests. Texts only ever enter the page as text.

export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Minutes, seconds and tenths: 1:05.0. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}

export const span = (start, end) => `${clock(start)} – ${clock(end)}`;
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** `rhythmic_energy` as people write it. */
export const plain = (name) => name.replaceAll("_", " ");
export const worded = (name) => name[0].toUpperCase() + plain(name.slice(1));

/** A text without case and accents. */
export const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
/** A number with its sign, and a real minus. */
export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}

/** Something to be said to the user; `refused` where the server did not like the question. */
export class Problem extends Error {}

const SLOWEST_MS = 20_000;

/** Ask the server; raises `Problem` with what to say, or AbortError if no longer wanted. */
export async function ask(path, { body, signal, headers = {}, json = true } = {}) {
  const options = { headers, signal: AbortSignal.any([AbortSignal.timeout(SLOWEST_MS), ...(signal ? [signal] : [])]) };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let answer, body_text, content = null;
  try {
    answer = await fetch(path, options);
    body_text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name === "TimeoutError") throw new Problem("The server takes too long to answer.");
    throw new Problem("The server cannot be reached. Is mess still running?");
  }
  try {
    content = JSON.parse(body_text);
  } catch { /* Said below. */ }
  if (!answer.ok) {
    const busy = answer.status === 503 ? "The server is busy. " : "";
    const told = content?.detail ?? content?.title;
    const text = busy + (typeof told === "string" ? told : `The server answers with error ${answer.status}.`);
    throw Object.assign(new Problem(text), { refused: answer.status < 500 });
  }
  if (json && (content === null || typeof content !== "object")) {
    throw new Problem("The server's answer cannot be read. Does something else listen at this address?");
  }
  return content;
}

/** Run a task after a pause; calls before that put it off, and `cancel` gives it up. */
export function later(task, pause_ms) {
  let timer;
  const cancel = () => clearTimeout(timer);
  return Object.assign(() => {
    cancel();
    timer = setTimeout(task, pause_ms);
  }, { cancel });
}
