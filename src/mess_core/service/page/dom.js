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
  const rest = ((tenths % 600) / 10).toFixed(1);
  return `${Math.floor(tenths / 600)}:${rest.padStart(4, "0")}`;
}

export const span = (start, end) => `${clock(start)} – ${clock(end)}`;

/** `rhythmic_energy` as people write it. */
export function worded(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

/** A number with its sign, as text that is read aloud right. */
export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}

/** What a recording or hit is called, in its parts that are known. */
export function called(of) {
  return [of.composer, of.title, of.performer].filter(Boolean).join(", ") || of.recording_id;
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Something that is said to the user. */
export class Problem extends Error {}

const SLOWEST_MS = 20_000;

/** Ask the server; raises `Problem` with what to tell, or AbortError if no longer wanted. */
export async function ask(path, { body, signal } = {}) {
  const signals = [AbortSignal.timeout(SLOWEST_MS), ...(signal ? [signal] : [])];
  const options = { signal: AbortSignal.any(signals) };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  let answer, text;
  try {
    answer = await fetch(path, options);
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const slow = error.name === "TimeoutError";
    throw new Problem(slow ? "The server takes too long to answer." : "The server cannot be reached. Is mess serve still running?");
  }
  let content = null;
  try {
    content = JSON.parse(text);
  } catch { /* said below */ }
  if (!answer.ok) {
    const busy = answer.status === 503 ? "The server is busy. " : "";
    const told = content && (content.detail ?? content.title);
    throw new Problem(busy + (typeof told === "string" ? told : `The server answers with error ${answer.status}.`));
  }
  if (content === null || typeof content !== "object") {
    throw new Problem("The server's answer cannot be read. Is something else listening at this address?");
  }
  return content;
}

/** Run a task later; calls before that put it off. */
export function later(task, wait_ms) {
  let timer;
  const put_off = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => task(...given), wait_ms);
  };
  put_off.cancel = () => clearTimeout(timer);
  return put_off;
}
