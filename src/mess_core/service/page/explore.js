// The page: one state, what the user does to it, and the answers that follow.

import { $, Problem, ask, called, clamp, el, later, worded } from "./dom.js";
import { passage_of_hit, show_hits } from "./hits.js";
import { Pick } from "./pick.js";
import { Sound, key_of, passage_of, recording_of, same_moment } from "./sound.js";
import { decode, encode, fresh, to_query } from "./state.js";
import { Aspects, Words, listen_filters, show_filters } from "./steer.js";
import { USUAL_S, Wave } from "./wave.js";

const ASK_MS = 60;
const SAVE_MS = 400;
/** A request that takes longer gives way to the next one. */
const PATIENCE_MS = 200;
const FOLLOW_MS = 250;
const LISTED = 200;

const state = fresh();
let aspects = null; // Rows, once the server has told them.
let recording = null; // The opened one.
let curves = {}; // Its curves by key: {label, unit, points}.

/* Telling what goes wrong */

function fail(error, retry) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Problem)) console.warn(error);
  say(error instanceof Problem ? error.message : "The server's answer is not what this page expects.", retry);
}

function say(text, retry) {
  $("problem-text").textContent = text;
  $("problem").hidden = false;
  $("again").hidden = !retry;
  $("again").onclick = () => {
    unsay();
    retry();
  };
}

function unsay() {
  $("problem").hidden = true;
}

/* The marked passage and its recording */

const passage = () => ({ id: state.recording, start: state.start, end: state.end });

const sound = new Sound(follow_sound, follow_time, say);

let restarts = false;
const restart = later(() => {
  restarts = false;
  sound.play(passage());
}, FOLLOW_MS);

const wave = new Wave((start, end) => {
  // What is being heard follows the mark.
  restarts ||= sound.hears(passage());
  Object.assign(state, { start, end });
  if (restarts) restart();
  changed();
});

/** Open a recording, at the passage given or one to begin with, and ask. */
let opening = null;
async function open(id, start = null, end = null) {
  opening?.abort();
  const mine = (opening = new AbortController());
  try {
    const opened = await recording_of(id, mine.signal);
    if (mine !== opening) return;
    const long = opened.duration_s;
    recording = opened;
    const first = clamp(start ?? Math.min(USUAL_S, (long - USUAL_S) / 2), 0, Math.max(long - 0.5, 0));
    const last = clamp(end ?? first + USUAL_S, Math.min(first + 0.5, long), long);
    Object.assign(state, { recording: id, start: first, end: last });
    show_recording();
    changed();
    show_curves(await ask(`recordings/${encodeURIComponent(id)}/curves?points=2000`, { signal: mine.signal }));
  } catch (error) {
    if (!mine.signal.aborted) fail(error, () => open(id, start, end));
  }
}

function show_recording() {
  $("recording-title").replaceChildren(el("span", {}, recording.title || recording.recording_id),
    el("small", {}, [recording.composer, recording.performer].filter(Boolean).join(", ")));
  $("no-audio").hidden = recording.audio;
  $("play").disabled = !recording.audio;
  show_curves({ waveform: null, curves: {} });
  wave.mark(state.start, state.end);
}

function show_curves(known) {
  const sampled = ({ values, start_s, step_s }) => values.map((value, place) => [start_s + place * step_s, value]);
  const { start_s, end_s } = recording.windows;
  const middles = start_s.map((start, place) => (start + end_s[place]) / 2);
  curves = {};
  for (const [name, curve] of Object.entries(known.curves)) {
    curves[name] = { label: name, unit: curve.unit, points: sampled(curve) };
  }
  for (const [name, values] of Object.entries(recording.aspects)) {
    curves[`windows.${name}`] = { label: `${name}, per window`, unit: "SD", points: middles.map((at, place) => [at, values[place]]) };
  }
  curves = Object.fromEntries(Object.entries(curves).filter(([, { points }]) => points.some(([, value]) => value !== null)));
  waveform = known.waveform;
  offer_curves();
  draw_curves();
}

let waveform = null;
const shown_curves = () => state.curves ?? usual_curves();

function usual_curves() {
  const told = ["tempo", "loudness"].filter((name) => name in curves);
  return told.length ? told : Object.keys(curves).slice(0, 2);
}

function offer_curves() {
  $("curves").replaceChildren(...Object.entries(curves).map(([name, { label, unit }]) => {
    const box = el("input", { type: "checkbox", value: name, checked: shown_curves().includes(name) });
    box.addEventListener("change", () => {
      state.curves = [...$("curves").querySelectorAll(":checked")].map((checked) => checked.value);
      draw_curves();
      save_soon();
    });
    return el("label", { className: "check" }, box, ` ${worded(label)} (${unit})`);
  }));
}

function draw_curves() {
  wave.show(recording.duration_s, waveform, shown_curves().filter((name) => name in curves).map((name) => curves[name]));
}

/* Asking */

let asked = null; // The request in flight, and when it began.
let due = false;
const ask_soon = (() => {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      search();
    }, ASK_MS);
  };
})();

/** Ask for the state as it is now. While an answer is on its way, the latest state waits for it:
 *  answers come while one drags, and only slow requests are given up. */
async function search() {
  if (asked) {
    due = true;
    if (performance.now() - asked.began > PATIENCE_MS) asked.abort();
    return;
  }
  const mine = (asked = new AbortController());
  mine.began = performance.now();
  $("answers").setAttribute("aria-busy", "true");
  try {
    const answer = await ask("search", { body: to_query(state), signal: mine.signal });
    const steered = Object.keys(state.aspects).filter((name) => ["more", "less"].includes(state.aspects[name].how));
    for (const hit of answer.hits) hit.steered = steered;
    show_hits(answer, { play: play_hit, from: search_from, choose });
    if (problem_of_search) unsay();
    problem_of_search = false;
    follow_sound();
  } catch (error) {
    if (!mine.signal.aborted) {
      problem_of_search = true;
      fail(error, search);
    }
  } finally {
    asked = null;
    $("answers").setAttribute("aria-busy", "false");
    if (due) {
      due = false;
      search();
    }
  }
}

let problem_of_search = false;

/** After every change of the state: ask, and keep it in the address. */
function changed() {
  if (!state.recording) return;
  ask_soon();
  save_soon();
  show_compare();
}

const address = () => `${location.pathname}${location.search}#${encode(state)}`;

let opened_by_user = false;
const save_soon = later(() => {
  if (`#${encode(state)}` === location.hash) return;
  // The first passage is no step to come back from.
  history[opened_by_user ? "pushState" : "replaceState"](null, "", address());
  opened_by_user = true;
}, SAVE_MS);

/* Hearing */

function play_hit(hit) {
  const wanted = passage_of_hit(hit);
  if (sound.hears(wanted)) sound.stop();
  else sound.play(wanted);
}

function toggle_passage() {
  if (sound.playing) sound.stop();
  else if (recording?.audio) sound.play(passage());
}

function search_from(hit) {
  open(hit.recording_id, hit.start_s, hit.end_s);
  $("mark").focus();
}

function follow_sound() {
  const playing = sound.playing ? key_of(sound.passage) : null;
  const here = playing && sound.slot === "sound" && playing === key_of(passage());
  $("play").textContent = here ? "Stop" : "Play";
  for (const item of $("hits").children) {
    const heard = item.dataset.key === playing;
    item.classList.toggle("heard", heard);
    item.querySelector(".play").textContent = heard ? "Stop" : "Play";
    const label = item.querySelector(".play");
    label.setAttribute("aria-label", label.getAttribute("aria-label").replace(/^(Play|Stop)/, heard ? "Stop" : "Play"));
  }
  for (const side of ["a", "b"]) $(`side-${side}`).setAttribute("aria-pressed", String(sound.playing && sound.slot === `sound-${side}`));
  if (!sound.playing) wave.head(null);
}

function follow_time() {
  wave.head(sound.passage.id === state.recording ? sound.at : null);
  const { start, end } = sound.passage;
  const progress = document.querySelector("#hits .heard .progress");
  if (progress) progress.style.width = `${((sound.at - start) / (end - start)) * 100}%`;
}

/* Comparing A and B */

const side = (name) => passage_of(state[name]) ?? (name === "a" ? passage() : null);

function choose(name, hit) {
  state[name] = key_of(passage_of_hit(hit));
  changed();
}

let compared = ""; // The pair that is loaded, as one text.
async function show_compare() {
  $("compare").hidden = !(state.a || state.b);
  document.body.classList.toggle("comparing", !$("compare").hidden);
  if ($("compare").hidden) return;
  const [a, b] = [side("a"), side("b")];
  $("side-b").disabled = $("switch").disabled = !b;
  const pair = [a, b].map((of) => of && key_of(of)).join(" ");
  if (pair === compared) return;
  compared = pair;
  try {
    const known = await Promise.all([a, b].map((of) => of && recording_of(of.id)));
    if (pair !== compared) return;
    [a, b].forEach((of, place) => {
      const name = "ab"[place];
      const text = of ? `${called(known[place])}, ${Math.round(of.start)} to ${Math.round(of.end)} s` : "choose it among the answers";
      $(`side-${name}`).lastElementChild.textContent = !state[name] && of ? `the passage: ${text}` : text;
      if (of && !(sound.playing && sound.slot === `sound-${name}`)) sound.load(of, `sound-${name}`);
    });
    const by = b && same_moment(a, 0.01, b, ...known).by;
    $("compare-how").textContent = by && (by === "work" ? "Switches at the same moment of the music." : "Switches at the same share of each passage.");
  } catch (error) {
    compared = "";
    fail(error, show_compare);
  }
}

/** Let the other side be heard, at the same musical moment; `to` is a side, or whichever is silent. */
async function switch_to(to) {
  const now = sound.playing && { "sound-a": "a", "sound-b": "b" }[sound.slot];
  const next = to ?? (now === "a" ? "b" : "a");
  const [from, target] = [side(now || "a"), side(next)];
  if ($("compare").hidden || !target) return;
  if (now === next) {
    sound.stop();
    return;
  }
  try {
    const both = now ? await Promise.all([recording_of(from.id), recording_of(target.id)]) : null;
    const { into } = both ? same_moment(from, sound.at - from.start, target, ...both) : { into: 0 };
    sound.play(target, { slot: `sound-${next}`, into });
  } catch (error) {
    fail(error);
  }
}

/* Keys, links, and the beginning */

function on_key(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  const target = event.target;
  if (target.matches("input:not([type=range], [type=checkbox], [type=radio]), select")) return;
  const mine = target.matches("#mark, #mark-start, #mark-end");
  if (event.key === " " && !target.closest("button, summary, [type=checkbox], [type=radio]")) toggle_passage();
  else if (event.key === "x") switch_to();
  else if (recording && (mine || (!target.closest("input, pre") && /^Arrow(Left|Right)$/.test(event.key)))) {
    if (!wave.key(event, target.id)) return;
  } else return;
  event.preventDefault();
}

async function copy(text, button) {
  const told = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = told), 1500);
  } catch {
    say(`The browser does not let this page copy. Copy it by hand: ${text}`);
  }
}

/** Take the state from the address. */
async function restore(first) {
  const read = decode(location.hash), wrong = read.wrong;
  for (const name of Object.keys(read.state.aspects)) {
    if (name !== "general" && !aspects.names.includes(name)) {
      wrong.push(name);
      delete read.state.aspects[name];
    }
  }
  for (const name of ["a", "b"]) {
    if (read.state[name] && !passage_of(read.state[name])) {
      wrong.push(`${name}=${read.state[name]}`);
      read.state[name] = "";
    }
  }
  const { recording: id, start, end } = read.state;
  Object.assign(state, read.state, { recording: state.recording });
  aspects.show();
  words.show();
  $("words").value = state.words;
  if (state.words) words.read({ keep: true });
  else words.take({ terms: [], not_understood: [], unmeasured: [], query: {} }, true);
  show_filters(state);
  opened_by_user = Boolean(location.hash);
  const use = first.find((listed) => listed.audio) ?? first[0];
  if (!use) {
    say("There is no recording in this index.");
    return;
  }
  await open(id || use.recording_id, start, end);
  if (id && state.recording !== id) {
    const why = $("problem-text").textContent;
    if (!recording) await open(use.recording_id);
    say(`This link cannot be followed: ${why}`);
  } else if (wrong.length) {
    say(`Not all of this link can be understood. Left out: ${wrong.join(", ")}.`);
  }
}

const words = new Words(state, ({ redraw = true } = {}) => {
  if (redraw) {
    words.show();
    aspects.show();
  }
  show_filters(state);
  changed();
}, fail);

function listen() {
  new Pick((id) => open(id), fail);
  listen_filters(state, changed);
  document.addEventListener("keydown", on_key);
  const clicks = {
    play: () => (sound.hears(passage()) ? sound.stop() : sound.play(passage())),
    skip: () => $("answers").focus(),
    dismiss: unsay,
    reset: () => {
      state.aspects = fresh().aspects;
      aspects.show();
      changed();
    },
    "copy-link": () => copy(new URL(address(), location.href).href, $("copy-link")),
    "copy-command": () => copy($("command").textContent, $("copy-command")),
    "side-a": () => switch_to("a"),
    "side-b": () => switch_to("b"),
    switch: () => switch_to(),
    "compare-close": () => {
      state.a = state.b = "";
      if (sound.slot !== "sound") sound.stop();
      changed();
    },
  };
  for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
  $("loop").addEventListener("change", () => sound.loop($("loop").checked));
  sound.loop(true);
  if (matchMedia("(min-width: 56rem)").matches) $("aspects-box").open = true;
}

async function begin() {
  try {
    const [told, first] = await Promise.all([ask("aspects"), ask(`recordings?limit=${LISTED}`)]);
    aspects = new Aspects(state, told.aspects, changed);
    for (const [id, column] of [["composers", "composer"], ["performers", "performer"]]) {
      const values = new Set(first.recordings.map((listed) => listed[column]).filter(Boolean));
      $(id).replaceChildren(...[...values].sort().map((value) => el("option", { value })));
    }
    addEventListener("popstate", () => restore(first.recordings));
    await restore(first.recordings);
  } catch (error) {
    fail(error, begin);
  }
}

listen();
begin();
