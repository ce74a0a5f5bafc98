// The question and the view, as they stand in the address after '#', and as the server's Query.

import { folded } from "./dom.js";

export const HOWS = ["like", "unlike", "ignore", "less", "more"];
export const MOST_STEPS = 4;
const MOST = { like: 1, unlike: 1, less: MOST_STEPS, more: MOST_STEPS };
const EXCLUDES = ["none", "passage", "recording", "work"], SPACES = ["general", "content", "expression"];
const MOST_HITS = 50, APART_S = 5;

export const fresh = () => ({
  recording: "", start: null, end: null,
  aspects: { general: { how: "like", amount: 1 } },
  words: "", wish: [], alone: false,
  exclude: "recording", composer: "", performer: "", k: 10, apart: true, same: false, relative: false, space: "general",
  curves: "", a: "", b: "",
});

const TEXTS = ["recording", "words", "composer", "performer", "curves", "a", "b"];
const CHECKS = ["alone", "apart", "same", "relative"];
const number = (value) => String(Number(value.toFixed(3)));
const pairs = (weights) => Object.entries(weights).map(([name, weight]) => `${name}:${number(weight)}`).join(",");
const listed = (text, by) => text.split(by).map((part) => part.trim()).filter(Boolean);

/** Aspects by how they count, without what counts nothing: {like: {name: amount}, ..., ignore: {name: 0}}. */
function grouped(aspects) {
  const groups = Object.fromEntries(HOWS.map((how) => [how, {}]));
  for (const [name, { how, amount }] of Object.entries(aspects)) {
    if (how === "ignore" || amount > 0) groups[how][name] = amount;
  }
  return groups;
}

export function encode(state) {
  const link = new URLSearchParams(), usual = fresh(), groups = grouped(state.aspects);
  const put = (name, text, unless = "") => text !== unless && link.set(name, text);
  put("recording", state.recording);
  for (const name of ["start", "end"]) if (state[name] !== null) link.set(name, number(state[name]));
  for (const how of Object.keys(MOST)) put(how, pairs(groups[how]), how === "like" ? "general:1" : "");
  put("ignore", Object.keys(groups.ignore).join(","));
  // After words it is there even if empty: words alone in a link are to be read anew.
  put("wish", state.wish.map(pairs).join(";"), state.words ? null : "");
  for (const name of [...TEXTS.slice(1), "exclude", "space", "k"]) put(name, String(state[name]), String(usual[name]));
  for (const name of CHECKS) put(name, String(Number(state[name])), String(Number(usual[name])));
  return link.toString();
}

/** Read an address; `wrong` lists the parts that cannot be meant, which are left out. */
export function decode(hash) {
  const link = new URLSearchParams(hash.replace(/^#/, "")), state = fresh(), wrong = [];
  const take = (name, sound, read = (text) => text) => {
    if (!link.has(name)) return;
    const text = link.get(name);
    if (sound(text)) state[name] = read(text);
    else wrong.push(`${name}=${text}`);
  };
  const weights = (text, low, high) => {
    const read = listed(text, ",").map((part) => [part, ...part.split(":")]);
    const good = ([, name, amount]) => /^[a-z_]+$/.test(name) && amount && amount >= low && amount <= high;
    wrong.push(...read.filter((one) => !good(one)).map(([part]) => part));
    return read.filter(good).map(([, name, amount]) => [name, Number(amount)]);
  };
  wrong.push(...[...link.keys()].filter((name) => ![...Object.keys(state), ...HOWS].includes(name)));
  for (const name of TEXTS) take(name, () => true);
  for (const name of CHECKS) take(name, (text) => ["0", "1"].includes(text), (text) => text === "1");
  take("exclude", (text) => EXCLUDES.includes(text));
  take("space", (text) => SPACES.includes(text));
  take("k", (text) => /^\d+$/.test(text) && text >= 1 && text <= MOST_HITS, Number);
  take("start", (text) => /^\d+(\.\d+)?$/.test(text), Number);
  take("end", (text) => /^\d+(\.\d+)?$/.test(text) && state.start !== null && text > state.start, Number);
  if (link.has("like")) state.aspects = {};
  for (const [how, most] of Object.entries(MOST)) {
    for (const [name, amount] of weights(link.get(how) ?? "", 0, most)) {
      if (name === "general" && how !== "like") wrong.push(`${how}=general`);
      else state.aspects[name] = { how, amount };
    }
  }
  for (const name of listed(link.get("ignore") ?? "", ",")) state.aspects[name] = { how: "ignore", amount: 0 };
  state.wish = listed(link.get("wish") ?? "", ";").map((text) => Object.fromEntries(weights(text, -1, 1)))
    .filter((group) => Object.keys(group).length);
  return { state, wrong };
}

/** The wishes that ask for something: without weights of 0. */
export const wished = (state) => state.wish.map((group) => Object.fromEntries(Object.entries(group).filter(([, weight]) => weight)))
  .filter((group) => Object.keys(group).length);

/** The names that are meant: the known one that is written so, or those that have all its words, or as it stands. */
function meant(text, known) {
  const plain = folded(text), same = known.filter((name) => folded(name) === plain);
  const like = known.filter((name) => plain.split(/\s+/).every((word) => folded(name).includes(word)));
  return [same, like, [text]].find((names) => names.length);
}

/** The server's Query; `known` are the composers and performers that there are. Contradictions
 *  cannot arise, since every aspect counts in one way. */
export function to_query(state, known) {
  const query = { k: state.k }, wish = wished(state);
  if (state.apart) query.dedupe_s = APART_S;
  if (wish.length) query.wish = wish;
  const where = Object.keys(known).map((name) => [name, listed(state[name], ";").flatMap((text) => meant(text, known[name]))]);
  const filtered = where.filter(([, values]) => values.length);
  if (filtered.length) query.where = Object.fromEntries(filtered);
  if (state.alone && wish.length) return query;
  Object.assign(query, { recording_id: state.recording, start_s: state.start, end_s: state.end });
  const { ignore, ...groups } = grouped(state.aspects);
  for (const [how, group] of Object.entries(groups)) if (Object.keys(group).length) query[how] = group;
  if (Object.keys(ignore).length) query.ignore = Object.keys(ignore);
  if (state.same) {
    query.same_passage = true;
    // Likeness counts beside a wish as soon as something is said to be liked; the passage is the same anyway.
    if (query.wish && pairs(groups.like) === "general:1") delete query.like;
  } else if (state.exclude !== "none") query.exclude = state.exclude;
  if (state.relative) query.relative = "work";
  if (state.space !== "general") query.space = state.space;
  return query;
}
