// Finding a recording: a combobox over composer, title and performer.

import { $, ask, clock, el, later } from "./dom.js";

const PAUSE_MS = 150, SHOWN = 50;

export class Pick {
  constructor(on_pick, fail) {
    Object.assign(this, { on_pick, fail, found: [], active: -1, text: null }); // `text`: what the shown list was found by.
    const field = $("pick");
    this.soon = later(() => this.search(), PAUSE_MS);
    field.addEventListener("input", this.soon);
    field.addEventListener("focus", () => this.search());
    field.addEventListener("keydown", (event) => this.key(event));
    field.addEventListener("blur", () => this.close());
    // The field keeps the focus, so that it does not close before the click.
    $("found").addEventListener("pointerdown", (event) => event.preventDefault());
    $("found").addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.take([...$("found").children].indexOf(option));
    });
  }

  async search() {
    this.running?.abort();
    this.soon.cancel();
    const mine = (this.running = new AbortController()), text = $("pick").value.trim();
    try {
      const page = await ask(`recordings?limit=${SHOWN}&q=${encodeURIComponent(text)}`, { signal: mine.signal });
      if (document.activeElement === $("pick")) this.show(page, text);
    } catch (error) {
      if (!mine.signal.aborted) this.fail(error, () => this.search());
    }
  }

  show({ recordings, total }, text) {
    Object.assign(this, { found: recordings, text });
    $("found").replaceChildren(...recordings.map((found, place) => el("li", { id: `found-${place}`, role: "option", "aria-selected": "false" },
      el("b", {}, found.title || found.recording_id), " ",
      el("span", { className: "soft" }, [found.composer, found.performer, clock(found.duration_s)].filter(Boolean).join(", ")))));
    $("found").hidden = !recordings.length;
    $("pick").setAttribute("aria-expanded", String(recordings.length > 0));
    const more = total > recordings.length ? `, the first ${recordings.length} are listed` : "";
    $("found-number").textContent = total === 1 ? "1 recording" : `${total || "No"} recordings${more}`;
    this.activate(-1);
  }

  activate(place) {
    this.active = place;
    [...$("found").children].forEach((option, at) => option.setAttribute("aria-selected", String(at === place)));
    $("pick").setAttribute("aria-activedescendant", place < 0 ? "" : `found-${place}`);
    $("found").children[place]?.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const turn = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (turn && this.found.length) {
      const many = this.found.length;
      if ($("found").hidden) this.search();
      else this.activate(this.active < 0 && turn < 0 ? many - 1 : (this.active + turn + many) % many);
    } else if (event.key === "Enter") this.enter();
    else if (event.key === "Escape") this.close();
    else return;
    event.preventDefault();
  }

  /** Take what is chosen, or the first that the text as it stands finds. */
  async enter() {
    const text = $("pick").value.trim();
    if (text !== this.text) await this.search();
    if (text === this.text && this.found.length && (text || this.active >= 0)) this.take(Math.max(this.active, 0));
  }

  take(place) {
    $("pick").value = "";
    this.close();
    this.on_pick(this.found[place].recording_id);
  }

  close() {
    this.running?.abort();
    this.soon.cancel();
    this.text = null;
    $("found").hidden = true;
    $("pick").setAttribute("aria-expanded", "false");
    $("found-number").textContent = "";
  }
}
