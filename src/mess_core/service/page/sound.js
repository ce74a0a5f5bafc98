// What is heard: one passage at a time; A and B of a comparison at the same musical moment.

import { $, ask, clamp } from "./dom.js";

const SLOTS = ["sound", "sound-a", "sound-b"];
/** Windows start 2.5 s apart; points of time further apart than this have a cut between them. */
const CUT_S = 5;

export const key_of = ({ id, start, end }) => `${id}@${start.toFixed(3)}-${end.toFixed(3)}`;

/** Read `R@12.000-17.000`; null if it is no such thing. */
export function passage_of(key) {
  const found = /^(.+)@(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/.exec(key);
  if (!found || !(Number(found[2]) < Number(found[3]))) return null;
  return { id: found[1], start: Number(found[2]), end: Number(found[3]) };
}

export class Sound {
  /** `on_change()` follows every start and stop, `on_time()` every frame; `say` tells problems. */
  constructor(on_change, on_time, say) {
    Object.assign(this, { on_change, slot: "sound", passages: {} });
    for (const slot of SLOTS) {
      for (const name of ["play", "pause", "ended"]) $(slot).addEventListener(name, () => on_change());
      $(slot).addEventListener("error", async () => {
        const { id } = this.passages[slot] ?? {};
        if (this.slot !== slot || !id) return;
        const why = await ask($(slot).src, { headers: { Range: "bytes=0-0" }, json: false }).catch((error) => error);
        say(why?.message ?? `The browser cannot play the audio of ${id}.`);
      });
    }
    const frame = () => {
      if (this.playing) on_time();
      requestAnimationFrame(frame);
    };
    frame();
  }

  get playing() { return !$(this.slot).paused && !$(this.slot).ended; }

  /** The passage that is or was last heard, and the time within its recording. */
  get passage() { return this.passages[this.slot] ?? null; }
  get at() { return this.passage && this.passage.start + $(this.slot).currentTime; }

  hears(passage, slot = "sound") {
    return this.playing && this.slot === slot && key_of(this.passage) === key_of(passage);
  }

  load(passage, slot = "sound") {
    const key = key_of(passage), element = $(slot);
    if (element.dataset.key === key) return;
    element.dataset.key = key;
    this.passages[slot] = passage;
    element.src = `audio/${encodeURIComponent(passage.id)}?from=${passage.start.toFixed(3)}&to=${passage.end.toFixed(3)}`;
  }

  /** Play a passage, from its start or some seconds into it. */
  play(passage, { slot = "sound", into = 0 } = {}) {
    for (const other of SLOTS) if (other !== slot) $(other).pause();
    this.slot = slot;
    if ($(slot).error) delete $(slot).dataset.key; // Try again.
    this.load(passage, slot);
    $(slot).currentTime = into;
    // Why it fails is told by the element's own error.
    $(slot).play().catch(() => this.on_change());
  }

  /** Have a passage ready; where another is heard in its slot, hear it instead. */
  follow(passage, slot) {
    if (this.playing && this.slot === slot && !this.hears(passage, slot)) this.play(passage, { slot });
    else this.load(passage, slot);
  }

  stop() { $(this.slot).pause(); }
  loop(on) { for (const slot of SLOTS) $(slot).loop = on; }
}

const recordings = new Map();

/** Get a recording with its windows; kept, since comparing asks for it at every switch. */
export async function recording_of(id, signal) {
  if (!recordings.has(id)) recordings.set(id, await ask(`recordings/${encodeURIComponent(id)}`, { signal }));
  return recordings.get(id);
}

/** Where times of a recording lie in its work: [[s, s in the work], ...], in order. */
function in_work({ windows: { start_s, end_s, work_start_s, work_end_s } }) {
  const points = [...start_s.map((at, place) => [at, work_start_s[place]]), ...end_s.map((at, place) => [at, work_end_s[place]])];
  return points.filter(([, work]) => work !== null).sort((one, other) => one[0] - other[0]);
}

function interpolate(points, at) {
  const next = points.findIndex(([from]) => from >= at);
  if (next < 0) return null;
  const [to, to_value] = points[next], [from, value] = points[next - 1] ?? [-Infinity];
  if (to === at) return to_value;
  return to - from > CUT_S ? null : value + ((at - from) / (to - from)) * (to_value - value);
}

/** The seconds into `to` that are the moment `into` seconds into `from`: by the times in the work
 *  where they are one passage of one work, else at the same share of the passage. */
export function same_moment(from, into, to, from_recording, to_recording) {
  const long = to.end - to.start, [there, back] = [in_work(from_recording), in_work(to_recording).map(([at, work]) => [work, at])];
  const mapped = (at) => {
    const work = interpolate(there, at);
    return (work === null ? null : interpolate(back, work)) ?? NaN;
  };
  const middle = mapped((from.start + from.end) / 2), at = mapped(from.start + into);
  const same_work = from_recording.work_id && from_recording.work_id === to_recording.work_id;
  if (same_work && middle >= to.start && middle <= to.end && !Number.isNaN(at)) {
    return { into: clamp(at - to.start, 0, 0.99 * long), by: "moment of the music" };
  }
  return { into: (into / (from.end - from.start)) * long, by: "share of each passage" };
}
