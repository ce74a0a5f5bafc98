// What counts: a row for every aspect, wishes in words, and which answers are wanted.

import { $, ask, el, later, plain, signed, worded } from "./dom.js";
import { HOWS, MOST_STEPS, fresh, wished } from "./state.js";

const STEERED = ["less", "more"];
const USUAL = { like: 0.5, unlike: 0.5, ignore: 0, less: 1, more: 1 };
const OFF = { how: "like", amount: 0 }, PAUSE_MS = 500;

/** Rows of the aspects; `on_change` is told after `state.aspects` has changed. */
export class Aspects {
  constructor(state, told, on_change) {
    Object.assign(this, { state, on_change });
    const general = { name: "general", description: "All that can be heard, taken together" };
    const resolved = told.filter((aspect) => aspect.resolved), missing = told.filter((aspect) => !aspect.resolved);
    this.names = resolved.map(({ name }) => name);
    this.rows = [general, ...resolved].map((aspect) => this.row(aspect));
    $("aspects").replaceChildren(...this.rows.map((row) => row.node));
    $("unresolved").hidden = !missing.length;
    $("unresolved").firstElementChild.textContent = `${missing.length} that cannot be searched for`;
    $("unresolved").lastElementChild.replaceChildren(...missing.map(({ name, description, reason }) =>
      el("li", {}, el("b", {}, worded(name)), ` (${description}): ${reason ?? "no reason is given"}`)));
  }

  row({ name, description, r2, interval, finding, directed }) {
    const range = interval ? ` (${interval.map((limit) => limit.toFixed(2)).join(" to ")})` : "";
    const known = [finding, typeof r2 === "number" && `the encoder knows it with R² ${r2.toFixed(2)}${range}`].filter(Boolean).join("; ");
    const hint = el("span", { className: "hint", id: `hint-${name}` }, description, el("br"), known);
    const slider = el("input", { type: "range", min: "0", "aria-label": worded(name), "aria-describedby": hint.id });
    const output = el("span", { className: "amount" }), row = { name, slider, output, kept: {} };
    const hows = name === "general" ? [] : HOWS.filter((how) => directed || !STEERED.includes(how));
    row.radios = hows.map((how) => el("input", { type: "radio", name: `how-${name}`, value: how }));
    row.node = el("div", { className: "aspect" }, el("b", {}, worded(name)), hint,
      el("div", { className: "hows", role: "radiogroup", "aria-label": `How ${plain(name)} counts`, hidden: !hows.length },
        ...row.radios.map((radio) => el("label", {}, radio, el("span", {}, radio.value)))),
      el("div", { className: "row" }, slider, output));
    slider.addEventListener("input", () => this.set(name, this.now(name).how, Number(slider.value)));
    for (const radio of row.radios) {
      radio.addEventListener("change", () => {
        row.kept[this.now(name).how] = this.now(name).amount;
        this.set(name, radio.value, row.kept[radio.value] || USUAL[radio.value]);
      });
    }
    return row;
  }

  now(name) { return this.state.aspects[name] ?? OFF; }

  set(name, how, amount) {
    this.state.aspects[name] = { how, amount };
    this.show();
    this.on_change();
  }

  /** Bring the rows in line with the state. */
  show() {
    const summary = [];
    for (const { name, node, slider, output, radios } of this.rows) {
      const { how, amount } = this.now(name), steps = STEERED.includes(how), counts = how === "ignore" || amount > 0;
      Object.assign(slider, { max: steps ? MOST_STEPS : 1, step: steps ? 0.25 : 0.05, value: amount, disabled: how === "ignore" });
      output.textContent = !counts ? "off" : how === "ignore" ? "ignored" : `${amount.toFixed(2)}${steps ? " steps" : ""}`;
      slider.setAttribute("aria-valuetext", steps || how === "unlike" ? `${how} ${output.textContent}` : output.textContent);
      for (const radio of radios) radio.checked = radio.value === how;
      node.classList.toggle("counts", counts);
      const words = [how !== "like" && how, plain(name), how !== "ignore" && Number(amount.toFixed(2))];
      if (counts) summary.push(words.filter(Boolean).join(" "));
    }
    $("aspects-sum").textContent = summary.join(", ") || "nothing counts, so likeness in general is taken";
  }
}

/** The words field, what it was understood to mean, and the wishes as sliders. */
export class Words {
  /** `on_change(redraw)` is told after the state has changed. */
  constructor(state, on_change, fail) {
    // `text` was read last; `said`: what it has set of the aspects, and what was set before.
    Object.assign(this, { state, on_change, fail, text: "", said: {} });
    $("words").addEventListener("input", later(() => this.read(), PAUSE_MS));
    $("words-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.read();
    });
  }

  /** Have the words of the field read, if they are others; those of a link always: `keep` what else
   *  it has set, or `take` them quietly. */
  async read(link = "") {
    const text = $("words").value.trim();
    if (text === this.text && !link) return;
    this.running?.abort();
    const { signal } = (this.running = new AbortController());
    this.state.words = this.text = text;
    const nothing = { terms: [], not_understood: [], unmeasured: [], query: {} };
    try {
      this.take(text ? await ask("words", { body: { text }, signal }) : nothing, link);
    } catch (error) {
      if (signal.aborted) return;
      this.take(nothing, link);
      if (error.refused) return $("terms").append(el("p", { className: "missing" }, error.message));
      this.text = null;
      this.fail(error, () => this.read(link === "keep" ? link : ""));
    }
  }

  take({ terms, not_understood, unmeasured, notes = [], query }, link) {
    const lines = [["Not understood", not_understood], ["Known, but no aspect here tells of it", unmeasured]];
    $("terms").replaceChildren(el("ul", { className: "chips" }, ...terms.map((term) => this.chip(term))),
      ...lines.filter(([, words]) => words.length)
        .map(([what, words]) => el("p", { className: "missing" }, `${what}: `, el("b", {}, words.join(", ")))),
      ...notes.map((note) => el("p", { className: "soft" }, note)));
    const { aspects } = this.state, ignored = (query.ignore ?? []).map((name) => [name, { how: "ignore", amount: 0 }]);
    const named = HOWS.filter((how) => how !== "ignore").flatMap((how) => Object.entries(query[how] ?? {})
      .map(([name, amount]) => [name, { how, amount: Math.min(amount, STEERED.includes(how) ? MOST_STEPS : 1) }]));
    // What was changed by hand since stays.
    const said = Object.entries(link ? {} : this.said).filter(([name, { given }]) => aspects[name] === given);
    for (const [name, { before }] of said) aspects[name] = before;
    this.said = {};
    const keep = link === "keep", usual = fresh().aspects;
    for (const [name, given] of [...ignored, ...named]) {
      const before = aspects[name] ?? OFF, same = before.how === given.how && before.amount === given.amount;
      if (!keep) aspects[name] = given;
      if (!keep || same) this.said[name] = { given: aspects[name], before: keep ? usual[name] ?? OFF : before };
    }
    if (!keep) this.state.wish = (query.wish ?? []).map((group) => ({ ...group }));
    if (!link) this.on_change(true);
  }

  chip({ text, read_as, role, aspects, source }) {
    const wish = role === "wish", told = (weight) => (wish ? signed(weight, 1) : Number(weight.toFixed(1)));
    const meant = Object.entries(aspects).map(([name, weight]) => `${plain(name)} ${told(weight)}`).join(", ");
    const as = read_as && !text.includes(read_as) ? ` (as ${read_as})` : "";
    return el("li", { title: source ? `Source: ${source}` : "" }, el("b", {}, text), as, ": ", wish ? meant : `${role} ${meant}`);
  }

  /** Show the wishes of the state as sliders. */
  show() {
    const groups = this.state.wish;
    $("alone-label").hidden = !groups.length;
    $("wishes").replaceChildren(...groups.map((group, place) => {
      const name = groups.length > 1 ? `Wish ${place + 1}` : "Wish";
      return el("fieldset", {}, el("legend", {}, name), ...Object.keys(group).map((aspect) => this.wish(group, aspect, name)));
    }));
  }

  wish(group, aspect, name) {
    const slider = el("input", { type: "range", min: "-1", max: "1", step: "0.05", "aria-label": `${name}: ${plain(aspect)}` });
    const remove = el("button", { type: "button", "aria-label": `Remove ${plain(aspect)}` }, "×"), output = el("span", { className: "amount" });
    const tell = () => {
      output.textContent = signed(group[aspect]);
      slider.setAttribute("aria-valuetext", output.textContent);
    };
    slider.value = group[aspect];
    tell();
    slider.addEventListener("input", () => {
      group[aspect] = Number(slider.value);
      tell();
      this.on_change(false);
    });
    remove.addEventListener("click", () => {
      delete group[aspect];
      this.state.wish = this.state.wish.filter((left) => Object.keys(left).length);
      this.on_change(true);
      $("words").focus();
    });
    return el("div", { className: "row wish" }, el("span", {}, worded(aspect)), slider, output, remove);
  }
}

const FIELDS = ["exclude", "space", "composer", "performer"];
const CHECKS = ["apart", "same", "relative", "alone"];

/** Let the fields of "which answers" change the state. */
export function listen_filters(state, on_change) {
  const read = (id) => (id === "k" ? Number($(id).value) : CHECKS.includes(id) ? $(id).checked : $(id).value);
  for (const id of [...FIELDS, ...CHECKS, "k"]) {
    $(id).addEventListener("input", () => {
      state[id] = read(id);
      show_filters(state);
      on_change();
    });
  }
}

export function show_filters(state) {
  for (const id of FIELDS) $(id).value = state[id];
  for (const id of CHECKS) $(id).checked = state[id];
  if (![...$("k").options].some(({ value }) => Number(value) === state.k)) $("k").append(el("option", {}, String(state.k)));
  $("k").value = state.k;
  const alone = state.alone && wished(state).length > 0;
  $("exclude").disabled = state.same || alone;
  $("same").disabled = $("relative").disabled = $("space").disabled = alone;
  const left_out = state.exclude !== "none" && !$("exclude").disabled && `not this ${state.exclude}`;
  $("filters-sum").textContent = [left_out, state.composer, state.performer, state.same && "the same passage",
    state.relative && "relative to the work"].filter(Boolean).join(", ");
}
