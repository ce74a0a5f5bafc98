// What counts: a row for every aspect, wishes in words, and which answers are wanted.

import { $, ask, el, later, signed, worded } from "./dom.js";
import { HOWS, MOST_STEPS } from "./state.js";

const STEERED = ["less", "more"];
const USUAL = { like: 0.5, unlike: 0.5, ignore: 0, less: 1, more: 1 };
const PAUSE_MS = 500;

/** Rows of the aspects; `on_change` is told after `state.aspects` has changed. */
export class Aspects {
  constructor(state, told, on_change) {
    this.state = state;
    this.on_change = on_change;
    const general = { name: "general", description: "All that can be heard, taken together" };
    const resolved = told.filter((aspect) => aspect.resolved);
    this.names = resolved.map(({ name }) => name);
    this.rows = [general, ...resolved].map((aspect) => this.row(aspect));
    $("aspects").replaceChildren(...this.rows.map((row) => row.node));
    const missing = told.filter((aspect) => !aspect.resolved);
    $("unresolved").hidden = !missing.length;
    $("unresolved").firstElementChild.textContent = `${missing.length} that cannot be searched for`;
    $("unresolved").lastElementChild.replaceChildren(...missing.map(({ name, description, reason }) =>
      el("li", {}, el("b", {}, worded(name)), ` (${description}): ${reason ?? "no reason is given"}`)));
  }

  row(aspect) {
    const { name, description, r2, interval, finding, directed } = aspect;
    const known = typeof r2 === "number" ? `R² ${r2.toFixed(2)}` : "";
    const range = interval ? ` (${interval.map((limit) => limit.toFixed(2)).join(" to ")})` : "";
    const hint = el("span", { className: "hint", id: `hint-${name}` },
      description, known && el("br"), [known && known + range, finding].filter(Boolean).join(", "));
    const slider = el("input", { type: "range", min: "0", "aria-label": worded(name), "aria-describedby": hint.id });
    const output = el("output", {});
    const hows = name === "general" ? [] : HOWS.filter((how) => directed || !STEERED.includes(how));
    const radios = hows.map((how) => el("input", { type: "radio", name: `how-${name}`, value: how }));
    const group = el("div", { className: "hows", role: "radiogroup", "aria-label": `How ${name.replaceAll("_", " ")} counts` },
      ...radios.map((radio) => el("label", {}, radio, el("span", {}, radio.value))));
    const node = el("div", { className: "aspect" },
      el("div", { className: "name" }, el("b", {}, worded(name)), hint), hows.length ? group : "",
      el("div", { className: "row" }, slider, output));
    const row = { name, node, slider, output, radios, kept: {} };
    slider.addEventListener("input", () => this.set(row, this.how(name), Number(slider.value)));
    for (const radio of radios) radio.addEventListener("change", () => this.choose(row, radio.value));
    return row;
  }

  how(name) {
    return this.state.aspects[name]?.how ?? "like";
  }

  choose(row, how) {
    row.kept[this.how(row.name)] = this.state.aspects[row.name]?.amount ?? 0;
    this.set(row, how, row.kept[how] ?? USUAL[how]);
  }

  set(row, how, amount) {
    this.state.aspects[row.name] = { how, amount };
    this.show();
    this.on_change();
  }

  /** Bring the rows in line with the state. */
  show() {
    for (const row of this.rows) {
      const { how, amount } = this.state.aspects[row.name] ?? { how: "like", amount: 0 };
      const steps = STEERED.includes(how);
      row.slider.max = steps ? MOST_STEPS : 1;
      row.slider.step = steps ? 0.25 : 0.05;
      row.slider.value = amount;
      row.slider.disabled = how === "ignore";
      const number = amount.toFixed(2);
      row.output.textContent = how === "ignore" ? "ignored" : amount === 0 ? "off" : steps ? `${number} steps` : number;
      row.slider.setAttribute("aria-valuetext", how === "like" ? row.output.textContent : `${how} ${row.output.textContent}`);
      for (const radio of row.radios) radio.checked = radio.value === how;
      row.node.classList.toggle("counts", how === "ignore" || amount > 0);
    }
    $("aspects-sum").textContent = this.summary();
  }

  summary() {
    const told = Object.entries(this.state.aspects).filter(([, { how, amount }]) => how === "ignore" || amount > 0)
      .map(([name, { how, amount }]) => (how === "ignore" ? `${how} ` : how === "like" ? "" : `${how} `)
        + name.replaceAll("_", " ") + (how === "ignore" ? "" : ` ${Number(amount.toFixed(2))}`));
    return told.join(", ") || "nothing counts, so likeness in general is taken";
  }
}

/** The words field, what it was understood to mean, and the wishes as sliders. */
export class Words {
  constructor(state, on_change, fail) {
    this.state = state;
    this.on_change = on_change;
    this.fail = fail;
    this.from_words = []; // Aspects that the last words have set.
    const soon = later(() => this.read(), PAUSE_MS);
    $("words").addEventListener("input", soon);
    $("words-form").addEventListener("submit", (event) => {
      event.preventDefault();
      soon.cancel();
      this.read();
    });
  }

  /** Have the words read; `keep` shows how without touching what a link has set. */
  async read({ keep = false } = {}) {
    const text = $("words").value.trim();
    this.running?.abort();
    const mine = (this.running = new AbortController());
    this.state.words = text;
    if (!text) {
      this.take({ terms: [], not_understood: [], unmeasured: [], query: {} }, keep);
      return;
    }
    try {
      this.take(await ask("words", { body: { text }, signal: mine.signal }), keep);
    } catch (error) {
      if (!mine.signal.aborted) this.fail(error, () => this.read({ keep }));
    }
  }

  take({ terms, not_understood, unmeasured, query }, keep) {
    const chips = terms.map((term) => this.chip(term));
    const lines = [["Not understood", not_understood], ["Known, but no aspect here tells of it", unmeasured]]
      .filter(([, words]) => words.length)
      .map(([what, words]) => el("p", { className: "missing" }, `${what}: `, el("b", {}, words.join(", "))));
    $("terms").replaceChildren(...(chips.length ? [el("ul", { className: "chips" }, ...chips)] : []), ...lines);
    if (keep) return;
    for (const name of this.from_words) delete this.state.aspects[name];
    this.from_words = [];
    for (const how of HOWS) {
      const named = how === "ignore" ? (query.ignore ?? []).map((name) => [name, 0]) : Object.entries(query[how] ?? {});
      for (const [name, amount] of named) {
        this.state.aspects[name] = { how, amount: Math.min(amount, STEERED.includes(how) ? MOST_STEPS : 1) };
        if (name !== "general") this.from_words.push(name);
      }
    }
    this.state.wish = (query.wish ?? []).map((group) => ({ ...group }));
    this.on_change();
  }

  chip({ text, read_as, role, aspects, source }) {
    const meant = Object.entries(aspects).map(([name, weight]) => `${name.replaceAll("_", " ")} ${signed(weight, 1)}`);
    const as = read_as && read_as !== text ? ` (as ${read_as})` : "";
    const how = role === "wish" ? "" : ` ${role}`;
    const what = meant.length ? `: ${meant.join(", ")}` : "";
    return el("li", { title: source ? `Source: ${source}` : "" }, el("b", {}, text), as, how, what);
  }

  /** Show the wishes of the state as sliders. */
  show() {
    if (document.activeElement !== $("words")) $("words").value = this.state.words;
    const groups = this.state.wish;
    $("alone-label").hidden = !groups.length;
    $("alone").checked = this.state.alone;
    const held = document.activeElement?.dataset.wish;
    $("wishes").replaceChildren(...groups.map((group, place) => {
      const name = groups.length > 1 ? `Wish ${place + 1}` : "Wish";
      return el("fieldset", {}, el("legend", {}, name), ...Object.keys(group).map((aspect) => this.wish(group, aspect, name)));
    }));
    if (held) document.querySelector(`[data-wish="${CSS.escape(held)}"]`)?.focus();
  }

  wish(group, aspect, name) {
    const slider = el("input", { type: "range", min: "-1", max: "1", step: "0.05", "aria-label": `${name}: ${aspect.replaceAll("_", " ")}` });
    const output = el("output", {}), remove = el("button", { type: "button", "aria-label": `Remove ${aspect.replaceAll("_", " ")}` }, "×");
    const tell = () => {
      output.textContent = signed(group[aspect]);
      slider.setAttribute("aria-valuetext", signed(group[aspect]));
    };
    slider.value = group[aspect];
    slider.dataset.wish = `${name} ${aspect}`;
    tell();
    slider.addEventListener("input", () => {
      group[aspect] = Number(slider.value);
      tell();
      this.on_change({ redraw: false });
    });
    remove.addEventListener("click", () => {
      delete group[aspect];
      this.state.wish = this.state.wish.filter((left) => Object.keys(left).length);
      this.on_change();
      $("words").focus();
    });
    return el("div", { className: "row wish" }, el("span", {}, worded(aspect)), slider, output, remove);
  }
}

const FIELDS = ["exclude", "composer", "performer"];
const CHECKS = ["apart", "same", "relative", "alone"];

/** Let the fields of "which answers" change the state. */
export function listen_filters(state, on_change) {
  const act = (id, take) => $(id).addEventListener("input", () => {
    take($(id));
    show_filters(state);
    on_change();
  });
  for (const id of FIELDS) act(id, (field) => (state[id] = field.value));
  for (const id of CHECKS) act(id, (field) => (state[id] = field.checked));
  act("k", (field) => (state.k = Number(field.value)));
}

export function show_filters(state) {
  for (const id of FIELDS) $(id).value = state[id];
  for (const id of CHECKS) $(id).checked = state[id];
  if (![...$("k").options].some((option) => Number(option.value) === state.k)) $("k").append(el("option", {}, String(state.k)));
  $("k").value = state.k;
  const alone = state.alone && state.wish.length > 0;
  $("exclude").disabled = state.same || alone;
  $("same").disabled = $("relative").disabled = alone;
  const left_out = state.exclude === "none" || $("exclude").disabled ? [] : [`not this ${state.exclude}`];
  $("filters-sum").textContent = [...left_out, state.composer, state.performer,
    state.same && "the same passage", state.relative && "relative to the work"].filter(Boolean).join(", ");
}
