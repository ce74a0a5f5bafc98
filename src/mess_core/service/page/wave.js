// The waveform, the curves under it, and the marked passage: a canvas each, and sliders over them.

import { $, clamp, clock, el, span, worded } from "./dom.js";

export const USUAL_S = 5, SHORTEST_S = 0.5;
const STEP_S = 0.5, DRAG_PX = 4, EDGE_PX = 28, MOST_ZOOM = 16, MOST_CANVAS_PX = 16_000;
const PER_S = 20; // Marks lie on such parts of a second.
/** The share of a curve's values beyond each end of its scale. */
const OUTSIDE = 0.04;
const COLOURS = ["--blue", "--orange", "--green", "--purple"];

export class Wave {
  /** `on_mark(start, end)` is told of every change. */
  constructor(on_mark) {
    Object.assign(this, { on_mark, duration: 0, zoom: 1, lanes: [], waveform: null, start: 0, end: 0 });
    this.listen();
    new ResizeObserver(() => this.draw()).observe($("stage"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Show a recording: its waveform or null, and curves {label, unit, points: [[s, value], ...]}. */
  show(duration, waveform, curves) {
    if (this.duration !== duration) {
      const wide = (USUAL_S / duration) * $("scroll").clientWidth;
      this.zoom = clamp(2 ** Math.ceil(Math.log2(44 / wide)), 1, MOST_ZOOM);
    }
    Object.assign(this, { duration, waveform });
    this.lanes = curves.map((curve, place) => this.lane(curve, COLOURS[place % COLOURS.length]));
    $("lanes").replaceChildren(...this.lanes.map((lane) => lane.node));
    this.scale();
  }

  lane(curve, colour) {
    // Without the extremes: the silence at an end would flatten all that is to be seen.
    const values = curve.points.map(([, value]) => value).filter((value) => value !== null).sort((one, other) => one - other);
    const out = Math.floor(OUTSIDE * values.length), low = values[out], high = values[values.length - 1 - out];
    const tag = el("span", { className: "label" }), canvas = el("canvas", { "aria-hidden": "true" });
    return { ...curve, low, high, colour, tag, canvas, node: el("div", { className: "lane" }, canvas, tag) };
  }

  scale() {
    $("stage").style.width = `${this.zoom * 100}%`;
    $("zoom-out").disabled = this.zoom <= 1;
    $("zoom-in").disabled = this.zoom >= MOST_ZOOM;
    this.draw();
    this.place();
    this.reveal();
  }

  reveal() {
    const box = $("scroll"), wide = $("stage").clientWidth / this.duration;
    const left = this.start * wide, right = this.end * wide, seen = box.scrollLeft;
    if (left < seen || right > seen + box.clientWidth) box.scrollLeft = (left + right - box.clientWidth) / 2;
  }

  draw() {
    if (!this.duration) return;
    const style = getComputedStyle(document.documentElement);
    this.draw_waveform($("wave").firstElementChild, style.getPropertyValue("--wave"));
    for (const lane of this.lanes) this.draw_lane(lane, style.getPropertyValue(lane.colour));
  }

  context(canvas) {
    const { clientWidth: wide, clientHeight: high } = canvas.parentElement;
    const ratio = Math.min(devicePixelRatio, MOST_CANVAS_PX / Math.max(wide, 1));
    canvas.width = wide * ratio;
    canvas.height = high * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    return { pen, wide, high };
  }

  draw_waveform(canvas, colour) {
    const { pen, wide, high } = this.context(canvas);
    pen.fillStyle = colour;
    pen.fillRect(0, high / 2, wide, 1);
    if (!this.waveform) return;
    const { low, high: top, step_s } = this.waveform;
    const loudest = Math.max(1e-3, ...top.map(Math.abs), ...low.map(Math.abs));
    const x = (place) => (place * step_s * wide) / this.duration;
    const y = (value) => (high / 2) * (1 - (0.96 * value) / loudest);
    pen.beginPath();
    pen.moveTo(0, high / 2);
    top.forEach((value, place) => pen.lineTo(x(place + 0.5), y(value) - 0.5));
    for (let place = low.length - 1; place >= 0; place--) pen.lineTo(x(place + 0.5), y(low[place]) + 0.5);
    pen.fill();
  }

  draw_lane(lane, colour) {
    const { pen, wide, high } = this.context(lane.canvas);
    const room = 20, depth = high - room - 6, range = lane.high - lane.low || 1;
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.beginPath();
    let drawn = false;
    for (const [at, value] of lane.points) {
      if (value !== null) {
        const y = room + depth * (1 - (clamp(value, lane.low, lane.high) - lane.low) / range);
        pen[drawn ? "lineTo" : "moveTo"]((at / this.duration) * wide, y);
      }
      drawn = value !== null;
    }
    pen.stroke();
  }

  /** Mark a passage without telling anyone. */
  mark(start, end) {
    Object.assign(this, { start, end });
    this.place();
  }

  place() {
    if (!this.duration) return;
    const { start, end } = this, share = (at) => `${(at / this.duration) * 100}%`;
    $("mark").style.left = $("mark-start").style.left = share(start);
    $("mark").style.width = share(end - start);
    $("mark-end").style.left = share(end);
    const last = Math.max(this.duration - (end - start), 0);
    const sliders = [
      ["mark-start", start, 0, end, clock(start)],
      ["mark-end", end, start, this.duration, clock(end)],
      ["mark", start, 0, last, `${clock(start)} to ${clock(end)}`],
    ];
    for (const [id, now, low, high, text] of sliders) {
      const values = { min: low.toFixed(2), max: high.toFixed(2), now: now.toFixed(2), text };
      for (const [name, value] of Object.entries(values)) $(id).setAttribute(`aria-value${name}`, value);
    }
    $("times").textContent = `${span(start, end)} (${(end - start).toFixed(1)} s)`;
    for (const lane of this.lanes) lane.tag.textContent = this.told(lane);
  }

  told({ label, unit, low, high, points }) {
    const inside = points.filter(([at, value]) => value !== null && at >= this.start && at <= this.end);
    const mean = inside.reduce((sum, [, value]) => sum + value, 0) / inside.length;
    const text = (value) => value.toFixed(high - low < 10 ? 1 : 0).replace("-", "−");
    const here = inside.length ? `, here ${text(mean)}` : "";
    return `${worded(label)} ${text(low)} to ${text(high)} ${unit}${here}`;
  }

  /** Show the playhead at a time, or hide it. */
  head(at) {
    $("head").hidden = at === null || at > this.duration;
    if (at !== null) $("head").style.left = `${(at / this.duration) * 100}%`;
  }

  set(start, end) {
    const round = (value) => Math.round(value * PER_S) / PER_S;
    start = clamp(round(start), 0, Math.max(this.duration - SHORTEST_S, 0));
    end = clamp(round(end), Math.min(start + SHORTEST_S, this.duration), this.duration);
    if (start === this.start && end === this.end) return;
    this.mark(start, end);
    this.on_mark(start, end);
  }

  move(start) {
    const long = this.end - this.start;
    const first = clamp(start, 0, Math.max(this.duration - long, 0));
    this.set(first, first + long);
  }

  /** Act on an arrow key, and say whether it was one; `id` is the slider that has the focus. */
  key({ key, shiftKey }, id) {
    const turns = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
    if (!(key in turns)) return false;
    const by = turns[key] * STEP_S;
    if (id === "mark-start") this.set(Math.min(this.start + by, this.end - SHORTEST_S), this.end);
    else if (id === "mark-end" || shiftKey) this.set(this.start, Math.max(this.end + by, this.start + SHORTEST_S));
    else this.move(this.start + by);
    this.reveal();
    return true;
  }

  listen() {
    const stage = $("stage");
    let drag = null;
    const at = (event) => {
      const { left, width } = stage.getBoundingClientRect();
      return clamp((event.clientX - left) / width, 0, 1) * this.duration;
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button || !this.duration) return;
      event.preventDefault(); // of selecting text
      const id = event.target.id.startsWith("mark") ? event.target.id : "";
      drag = { id, from: at(event), x: event.clientX, start: this.start, end: this.end, moved: false };
      $(id || "mark").focus({ preventScroll: true });
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!drag || (!drag.moved && Math.abs(event.clientX - drag.x) < DRAG_PX)) return;
      drag.moved = true;
      const now = at(event), box = $("scroll"), { left, right } = box.getBoundingClientRect();
      // Scroll on at an edge of what is seen.
      box.scrollLeft += EDGE_PX * ((event.clientX > right - EDGE_PX) - (event.clientX < left + EDGE_PX)) / 2;
      if (drag.id === "mark") this.move(drag.start + now - drag.from);
      else {
        const fixed = { "mark-start": drag.end, "mark-end": drag.start }[drag.id] ?? drag.from;
        this.set(Math.min(fixed, now), Math.max(fixed, now));
      }
    });
    stage.addEventListener("pointerup", () => {
      // A click beside the passage marks one of the usual length there.
      if (drag && !drag.moved && !drag.id) {
        const first = clamp(drag.from, 0, Math.max(this.duration - USUAL_S, 0));
        this.set(first, first + USUAL_S);
      }
      drag = null;
    });
    stage.addEventListener("pointercancel", () => (drag = null));
    for (const [id, times] of [["zoom-in", 2], ["zoom-out", 1 / 2]]) {
      $(id).addEventListener("click", () => {
        this.zoom = clamp(this.zoom * times, 1, MOST_ZOOM);
        this.scale();
      });
    }
  }
}
