// The question and the view, as they stand in the address after '#', and as the server's Query.

import { clamp } from "./dom.js";

export const HOWS = ["like", "unlike", "ignore", "less", "more"];
const WEIGHTED = ["like", "unlike", "less", "more"];
const EXCLUDES = ["none", "passage", "recording", "work"];
const APART_S = 5;
export const MOST_STEPS = 4;

export function fresh() {
  return {
    recording: "", start: null, end: null,
    aspects: { general: { how: "like", amount: 1 } },
    words: "", wish: [], alone: false,
    exclude: "recording", composer: "", performer: "", k: 10, apart: true, same: false, relative: false,
    curves: null, a: "", b: "",
  };
}

const number = (value) => String(Number(value.toFixed(3)));
const pairs = (weights) => Object.entries(weights).map(([name, weight]) => `${name}:${number(weight)}`).join(",");

/** Aspects by how they count: {like: {name: amount}, ...}, with ignore: {name: 1}. */
function grouped(aspects) {
  const groups = Object.fromEntries(HOWS.map((how) => [how, {}]));
  for (const [name, { how, amount }] of Object.entries(aspects)) {
    if (how === "ignore") groups.ignore[name] = 1;
    else if (amount > 0) groups[how][name] = amount;
  }
  return groups;
}

export function encode(state) {
  const link = new URLSearchParams(), usual = fresh();
  if (state.recording) link.set("r", state.recording);
  for (const name of ["start", "end"]) if (state[name] !== null) link.set(name, number(state[name]));
  const groups = grouped(state.aspects);
  for (const how of WEIGHTED) {
    const text = pairs(groups[how]);
    if (text !== (how === "like" ? "general:1" : "")) link.set(how, text);
  }
  const ignored = Object.keys(groups.ignore);
  if (ignored.length) link.set("ignore", ignored.join(","));
  if (state.wish.length) link.set("wish", state.wish.map(pairs).join(";"));
  for (const name of ["words", "exclude", "composer", "performer", "k", "a", "b"]) {
    if (state[name] !== usual[name]) link.set(name, state[name]);
  }
  for (const name of ["alone", "apart", "same", "relative"]) {
    if (state[name] !== usual[name]) link.set(name, state[name] ? "1" : "0");
  }
  if (state.curves) link.set("curves", state.curves.join(","));
  return link.toString();
}

function read_pairs(text, low, high, wrong) {
  const weights = {};
  for (const part of text.split(",").filter(Boolean)) {
    const [name, amount] = part.split(":");
    if (!/^[a-z_]+$/.test(name) || !(Number(amount) >= low && Number(amount) <= high)) wrong.push(part);
    else weights[name] = Number(amount);
  }
  return weights;
}

/** Read an address; `wrong` lists the parts that cannot be meant, which are left out. */
export function decode(hash) {
  const link = new URLSearchParams(hash.replace(/^#/, "")), state = fresh(), wrong = [];
  const known = new Set(["r", "start", "end", ...HOWS, "wish", "curves", ...Object.keys(state)]);
  for (const name of link.keys()) if (!known.has(name)) wrong.push(name);
  state.recording = link.get("r") ?? "";
  for (const name of ["start", "end"]) {
    if (!link.has(name)) continue;
    const value = Number(link.get(name) || NaN);
    if (value >= 0 && Number.isFinite(value)) state[name] = value;
    else wrong.push(`${name}=${link.get(name)}`);
  }
  if (state.end !== null && !(state.start !== null && state.start < state.end)) {
    wrong.push(`end=${link.get("end")}`);
    state.end = null;
  }
  if (link.has("like")) state.aspects = {};
  for (const how of WEIGHTED) {
    const most = how === "like" || how === "unlike" ? 1 : MOST_STEPS;
    const read = read_pairs(link.get(how) ?? "", 0, most, wrong);
    for (const [name, amount] of Object.entries(read)) state.aspects[name] = { how, amount };
  }
  for (const name of (link.get("ignore") ?? "").split(",").filter(Boolean)) {
    state.aspects[name] = { how: "ignore", amount: 0 };
  }
  if (state.aspects.general && state.aspects.general.how !== "like") {
    wrong.push("general");
    state.aspects.general = { how: "like", amount: 1 };
  }
  state.wish = (link.get("wish") ?? "").split(";").map((text) => read_pairs(text, -1, 1, wrong))
    .filter((group) => Object.keys(group).length);
  for (const name of ["words", "composer", "performer", "a", "b"]) state[name] = link.get(name) ?? "";
  if (link.has("exclude")) {
    if (EXCLUDES.includes(link.get("exclude"))) state.exclude = link.get("exclude");
    else wrong.push(`exclude=${link.get("exclude")}`);
  }
  if (link.has("k")) {
    if (/^\d{1,3}$/.test(link.get("k")) && Number(link.get("k")) > 0) state.k = clamp(Number(link.get("k")), 1, 50);
    else wrong.push(`k=${link.get("k")}`);
  }
  for (const name of ["alone", "apart", "same", "relative"]) {
    if (link.has(name)) state[name] = link.get(name) === "1";
  }
  if (link.has("curves")) state.curves = link.get("curves").split(",").filter(Boolean);
  return { state, wrong };
}

const listed = (text) => text.split(";").map((part) => part.trim()).filter(Boolean);

/** The server's Query: contradictions cannot arise, since every aspect counts in one way. */
export function to_query(state) {
  const query = { k: state.k };
  if (state.apart) query.dedupe_s = APART_S;
  if (state.wish.length) query.wish = state.wish;
  const where = { composer: listed(state.composer), performer: listed(state.performer) };
  for (const column of Object.keys(where)) if (!where[column].length) delete where[column];
  if (Object.keys(where).length) query.where = where;
  if (state.alone && state.wish.length) return query;
  Object.assign(query, { recording_id: state.recording, start_s: state.start, end_s: state.end });
  const groups = grouped(state.aspects);
  for (const how of WEIGHTED) if (Object.keys(groups[how]).length) query[how] = groups[how];
  if (Object.keys(groups.ignore).length) query.ignore = Object.keys(groups.ignore);
  // With a wish the server's own "general" leaves out what tells of the wish.
  const only_general = pairs(groups.like) === "general:1" && !query.more && !query.less;
  if (query.wish && only_general) delete query.like;
  if (state.same) query.same_passage = true;
  else if (state.exclude !== "none") query.exclude = state.exclude;
  if (state.relative) query.relative = "work";
  return query;
}
