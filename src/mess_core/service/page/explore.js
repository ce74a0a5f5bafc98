// The page: one state, what the user does to it, and the answers that follow.

import { $, Problem, ask, clamp, clock, el, later, span, worded } from "./dom.js";
import { passage_of_hit, show_hits } from "./hits.js";
import { Pick } from "./pick.js";
import { Sound, key_of, passage_of, recording_of, same_moment } from "./sound.js";
import { decode, encode, fresh, to_query } from "./state.js";
import { Aspects, Words, listen_filters, show_filters } from "./steer.js";
import { SHORTEST_S, USUAL_S, Wave } from "./wave.js";

const ASK_MS = 60, SAVE_MS = 400, STEP_MS = 3000, FOLLOW_MS = 250, LISTED = 200, MOST_LISTED = 2000, CURVE_POINTS = 2000;
/** A request that takes longer than this gives way to the next one. */
const PATIENCE_MS = 200;

const state = fresh();
let aspects = null, first = null; // Rows of the aspects, and the recording to begin with, once they are known.
let spaces = []; // In which the index can compare.
const names = { composer: [], performer: [] }; // To filter by.
let recording = null, waveform = null, curves = {}; // The opened one, and its curves by name.

/* Saying what goes wrong */

function say(text, retry) {
  $("problem-text").textContent = text;
  $("problem").hidden = false;
  $("again").hidden = !retry;
  $("again").onclick = () => {
    $("problem").hidden = true;
    retry();
  };
}

function fail(error, retry) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Problem)) console.warn(error);
  say(error instanceof Problem ? error.message : "The server's answer is not what this page expects.", retry);
}

/* The recording and its marked passage */

const passage = () => ({ id: state.recording, start: state.start, end: state.end });
const sound = new Sound(follow_sound, follow_time, say);

let restarts = false;
const restart = later(() => {
  if (restarts) sound.follow(passage(), "sound");
  restarts = false;
}, FOLLOW_MS);

const wave = new Wave((start, end) => {
  restarts ||= sound.hears(passage()); // What is being heard follows the mark.
  Object.assign(state, { start, end });
  restart();
  changed();
});

let opening = null;

/** Open a recording and ask, from the passage given or one to begin with; say if it could be opened.
 *  Of a link, `wrong` takes the times that lie beyond the end. */
async function open(id, start = null, end = null, wrong = null) {
  opening?.abort();
  const { signal } = (opening = new AbortController());
  try {
    const opened = await recording_of(id, signal);
    signal.throwIfAborted();
    const long = opened.duration_s, beyond = (name, at) => wrong?.push(`${name}=${at} (it ends at ${clock(long)})`);
    if (end > long + 0.01 && beyond("end", end)) end = null;
    if (start > long - SHORTEST_S && beyond("start", start)) start = end = null;
    const from = clamp(start ?? Math.min(USUAL_S, (long - USUAL_S) / 2), 0, Math.max(long - SHORTEST_S, 0));
    const to = clamp(end ?? from + USUAL_S, Math.min(from + SHORTEST_S, long), long);
    recording = opened;
    Object.assign(state, { recording: id, start: from, end: to });
    // What a link or the beginning shows is no step of its own to come back from.
    if (wrong) history.replaceState(null, "", address());
    show_recording();
    changed();
    show_curves(await ask(`recordings/${encodeURIComponent(id)}/curves?points=${CURVE_POINTS}`, { signal }));
  } catch (error) {
    if (!signal.aborted) fail(error, () => open(id, start, end));
  }
  return recording?.recording_id === id;
}

function show_recording() {
  const { title, composer, performer, recording_id, audio } = recording;
  $("recording-title").replaceChildren(title || recording_id, el("small", {}, [composer, performer].filter(Boolean).join(", ")));
  $("no-audio").hidden = audio;
  $("play").disabled = !audio;
  wave.mark(state.start, state.end);
  show_curves({ waveform: null, curves: {} });
}

function show_curves(known) {
  const { windows, aspects: values } = recording;
  const middles = windows.start_s.map((start, place) => (start + windows.end_s[place]) / 2);
  const all = Object.entries(known.curves).map(([name, { unit, values: sampled, start_s, step_s }]) =>
    [name, { label: name, unit, points: sampled.map((value, place) => [start_s + place * step_s, value]) }]);
  all.push(...Object.entries(values).map(([name, each]) =>
    [`windows.${name}`, { label: `${name}, per window`, unit: "SD", points: middles.map((at, place) => [at, each[place]]) }]));
  curves = Object.fromEntries(all.filter(([, { points }]) => points.some(([, value]) => value !== null)));
  waveform = known.waveform;
  $("curves").replaceChildren(...Object.entries(curves).map(([name, { label, unit }]) => {
    const box = el("input", { type: "checkbox", value: name, checked: shown_curves().includes(name) });
    box.addEventListener("change", () => {
      state.curves = [...$("curves").querySelectorAll(":checked")].map((checked) => checked.value).join(",") || "none";
      draw_curves();
      save_soon();
    });
    return el("label", { className: "check" }, box, ` ${worded(label)} (${unit})`);
  }));
  draw_curves();
}

function shown_curves() {
  if (state.curves) return state.curves.split(",").filter((name) => name in curves);
  const usual = ["tempo", "loudness", "brightness"].filter((name) => name in curves);
  return usual.length ? usual : Object.keys(curves).slice(0, 2);
}

const draw_curves = () => wave.show(recording.duration_s, waveform, shown_curves().map((name) => curves[name]));

/* Asking */

let timer = null, asked = null, due = false, failed = false, restores = 0;

/** After every change of the state: ask, and keep it in the address. */
function changed() {
  if (!recording) return;
  timer ??= setTimeout(search, ASK_MS);
  save_soon();
  compare_soon();
}

/** Ask for the state as it is now. While an answer is on its way, the latest state waits for it,
 *  so that answers come while one drags; only a slow request is given up. */
async function search() {
  timer = null;
  if (asked) {
    due = true;
    if (performance.now() - asked.began > PATIENCE_MS) asked.abort();
    return;
  }
  asked = Object.assign(new AbortController(), { began: performance.now() });
  const { signal } = asked;
  $("answers").setAttribute("aria-busy", "true");
  try {
    const query = to_query(state, names);
    const numbers = state.wish.flatMap((group, place) => (Object.values(group).some(Boolean) ? [place + 1] : []));
    show_hits(await ask("search", { body: query, signal }), Object.keys({ ...query.more, ...query.less }), { ...on_hit, numbers });
    if (failed) $("problem").hidden = true;
    failed = false;
    follow_sound();
  } catch (error) {
    failed ||= !signal.aborted;
    if (!signal.aborted) fail(error, search);
  }
  asked = null;
  $("answers").setAttribute("aria-busy", "false");
  if (due) search();
  due = false;
}

const address = () => `${location.pathname}${location.search}#${encode(state)}`;

// What changes again and again within STEP_MS makes one step to go back by.
let saved = { kind: "", at: -Infinity };
const save_soon = later(() => {
  const [before, now] = [location.hash.slice(1), encode(state)].map((text) => new URLSearchParams(text));
  const kind = [...new Set([...before.keys(), ...now.keys()])].filter((name) => before.get(name) !== now.get(name)).join();
  if (!kind) return;
  const same = kind === saved.kind && performance.now() - saved.at < STEP_MS;
  history[same ? "replaceState" : "pushState"](null, "", address());
  saved = { kind, at: performance.now() };
}, SAVE_MS);

/* Hearing */

function toggle(wanted, slot = "sound") {
  if (sound.hears(wanted, slot)) sound.stop();
  else sound.play(wanted, { slot });
}

const on_hit = {
  play: (hit) => toggle(passage_of_hit(hit)),
  from: (hit) => {
    open(hit.recording_id, hit.start_s, hit.end_s);
    $("mark").focus();
  },
  choose: (name, hit) => {
    state[name] = key_of(passage_of_hit(hit));
    changed();
  },
};

function follow_sound() {
  $("play").textContent = sound.hears(passage()) ? "Stop" : "Play";
  [...$("hits").children].forEach((item, place) => {
    const heard = sound.playing && item.dataset.key === key_of(sound.passage), button = item.querySelector(".play");
    item.classList.toggle("heard", heard);
    button.textContent = heard ? "Stop" : "Play";
    button.setAttribute("aria-label", `${button.textContent} answer ${place + 1}`);
  });
  for (const name of "ab") $(`side-${name}`).setAttribute("aria-pressed", String(sound.playing && sound.slot === `sound-${name}`));
  if (!sound.playing) wave.head(null);
}

function follow_time() {
  const { id, start, end } = sound.passage, progress = document.querySelector("#hits .heard .progress");
  wave.head(id === state.recording ? sound.at : null);
  if (progress) progress.style.width = `${((sound.at - start) / (end - start)) * 100}%`;
}

/* Comparing A and B: A is the marked passage unless another is chosen */

const side = (name) => passage_of(state[name]) ?? (name === "a" ? passage() : null);

let compared = ""; // The pair that is shown, as one text.
async function show_compare() {
  $("compare").hidden = !(state.a || state.b);
  document.body.classList.toggle("comparing", !$("compare").hidden);
  const sides = [side("a"), side("b")], pair = sides.map((of) => of && key_of(of)).join(" ");
  if ($("compare").hidden || pair === compared) return;
  compared = pair;
  $("side-b").disabled = $("switch").disabled = !sides[1];
  try {
    const known = await Promise.all(sides.map((of) => of && recording_of(of.id)));
    if (pair !== compared) return;
    ["a", "b"].forEach((name, place) => {
      const { title, performer, recording_id } = known[place] ?? {}, of = sides[place];
      const told = of && [performer, title || recording_id, span(of.start, of.end)].filter(Boolean).join(", ");
      $(`side-${name}`).title = $(`side-${name}`).lastElementChild.textContent = told ?? "choose it among the answers";
      if (of) sound.follow(of, `sound-${name}`);
    });
    const by = sides[1] && same_moment(sides[0], 0, sides[1], ...known).by;
    $("compare-how").textContent = by ? `Switches at the same ${by}.` : "";
  } catch (error) {
    compared = "";
    fail(error, show_compare);
  }
}

const compare_soon = later(show_compare, FOLLOW_MS);

/** Let the silent side be heard, at the same musical moment. */
async function switch_sides() {
  const now = sound.playing && sound.slot.at(-1), next = now === "a" ? "b" : "a";
  const [from, to] = [side(now === "b" ? "b" : "a"), side(next)];
  if ($("compare").hidden || !to) return;
  try {
    const known = await Promise.all([recording_of(from.id), recording_of(to.id)]);
    const into = ["a", "b"].includes(now) ? same_moment(from, sound.at - from.start, to, ...known).into : 0;
    sound.play(to, { slot: `sound-${next}`, into });
  } catch (error) {
    fail(error);
  }
}

/* Keys, links, and the beginning */

function on_key(event) {
  const { key, target } = event;
  const typing = target.matches("input:not([type=range], [type=checkbox], [type=radio]), select");
  if (typing || event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  const moves = target.matches("[id^=mark]") || (/^Arrow(Left|Right)$/.test(key) && !target.closest("input, code"));
  if (key === " " && !target.closest("button, summary, [type=checkbox], [type=radio]")) {
    if (sound.playing) sound.stop();
    else if (recording?.audio) sound.play(passage());
  } else if (key === "x") switch_sides();
  else if (!(recording && moves && wave.key(event, target.id))) return;
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

/** What a link has besides words: with none of it, the words are to be taken. */
const ASKS = /[#&](wish|like|unlike|more|less|ignore)=/;

/** Take the state from the address. */
async function restore() {
  const turn = ++restores, { state: linked, wrong } = decode(location.hash), { recording: id, start, end } = linked;
  const drop = (from, name) => wrong.push(name) && delete from[name];
  for (const group of [linked.aspects, ...linked.wish]) {
    for (const name of Object.keys(group)) if (![...aspects.names, "general"].includes(name)) drop(group, name);
  }
  linked.wish = linked.wish.filter((group) => Object.keys(group).length);
  if (!spaces.includes(linked.space)) drop(linked, "space");
  for (const name of ["a", "b"]) if (linked[name] && !passage_of(linked[name])) drop(linked, name);
  Object.assign(state, fresh(), linked, { recording: state.recording, start: state.start, end: state.end });
  save_soon.cancel();
  saved.kind = "";
  $("words").value = state.words;
  if (state.words && !ASKS.test(location.hash)) await words.read("take");
  else words.read("keep");
  if (turn !== restores) return; // Another link was followed while these words were read.
  aspects.show();
  words.show();
  show_filters(state);
  if (!(await open(id || first, start, end, wrong)) && id) {
    const why = $("problem-text").textContent;
    if (!recording) await open(first, null, null, []);
    say(`This link cannot be followed. ${why}`, restore);
  } else if (wrong.length) say(`Not all of this link can be understood. Left out: ${wrong.join(", ")}.`);
}

const words = new Words(state, (redraw = true) => {
  if (redraw) {
    words.show();
    aspects.show();
  }
  show_filters(state);
  changed();
}, fail);

async function begin() {
  try {
    const list = (offset) => ask(`recordings?limit=${LISTED}&offset=${offset}`);
    const [{ aspects: told, spaces: compared }, { recordings, total }] = await Promise.all([ask("aspects"), list(0)]);
    if (!recordings.length) throw new Problem("The index has no recordings.");
    while (recordings.length < Math.min(total, MOST_LISTED)) recordings.push(...(await list(recordings.length)).recordings);
    aspects = new Aspects(state, told, changed);
    spaces = compared;
    for (const option of $("space").options) option.hidden = option.disabled = !spaces.includes(option.value);
    $("space-label").hidden = spaces.length < 2;
    for (const column of Object.keys(names)) {
      names[column] = [...new Set(recordings.map((listed) => listed[column]).filter(Boolean))].sort();
      $(`${column}s`).replaceChildren(...names[column].map((value) => el("option", { value })));
    }
    first = (recordings.find((listed) => listed.audio) ?? recordings[0]).recording_id;
    addEventListener("popstate", restore);
    await restore();
  } catch (error) {
    fail(error, begin);
  }
}

const clicks = {
  play: () => toggle(passage()),
  skip: () => $("answers").focus(),
  dismiss: () => ($("problem").hidden = true),
  reset: () => {
    state.aspects = fresh().aspects;
    aspects.show();
    changed();
  },
  "copy-link": () => copy(new URL(address(), location.href).href, $("copy-link")),
  "copy-command": () => copy($("command").textContent, $("copy-command")),
  "side-a": () => toggle(side("a"), "sound-a"),
  "side-b": () => toggle(side("b"), "sound-b"),
  switch: switch_sides,
  "compare-close": () => {
    if (sound.slot !== "sound") sound.stop();
    state.a = state.b = "";
    changed();
    $("answers").focus({ preventScroll: true });
  },
  loop: () => sound.loop($("loop").checked),
};
for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
new Pick(open, fail);
listen_filters(state, changed);
document.addEventListener("keydown", on_key);
document.addEventListener("pointerdown", ({ target }) => {
  if (!$("curves-menu").contains(target)) $("curves-menu").open = false;
});
sound.loop(true);
$("aspects-box").open = matchMedia("(min-width: 56rem)").matches;
begin();
