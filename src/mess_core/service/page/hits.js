// The answers: what they are, why they are answers, and what can be done from each.

import { $, el, signed, span, worded } from "./dom.js";
import { key_of } from "./sound.js";

export const passage_of_hit = (hit) => ({ id: hit.recording_id, start: hit.start_s, end: hit.end_s });

/** Show an answer: `steered` are the aspects of more and less; `on` has play, from and choose, and the
 *  `numbers` of the wishes that were asked. The focus stays on the same control of the same place. */
export function show_hits({ hits, notes, predicted, command }, steered, on) {
  const buttons = () => [...$("hits").querySelectorAll("button")], focused = buttons().indexOf(document.activeElement);
  const longest = Math.max(1e-6, ...hits.flatMap((hit) => Object.values(hit.contributions)).map(Math.abs));
  $("hits").replaceChildren(...hits.map((hit, place) => item(hit, place + 1, { longest, predicted, steered, on })));
  if (focused >= 0) (buttons()[focused] ?? $("answers")).focus({ preventScroll: true });
  $("notes").replaceChildren(...notes.map((note) => el("li", {}, note)));
  $("number").textContent = hits.length === 1 ? "1 answer" : `${hits.length || "No"} answers`;
  $("command-box").hidden = !command;
  $("command").textContent = command ?? "";
}

function item(hit, rank, { longest, predicted, steered, on }) {
  const name = `answer ${rank}`;
  const facts = [hit.composer, hit.performer, span(hit.start_s, hit.end_s), hit.same_passage && "the same passage"];
  const button = (text, label, act) => {
    const node = el("button", { type: "button", "aria-label": label }, text);
    node.addEventListener("click", act);
    return node;
  };
  const play = button("Play", `Play ${name}`, () => on.play(hit));
  play.className = "play";
  const node = el("li", { className: "hit" },
    el("div", { className: "hit-head" },
      el("span", { className: "rank" }, String(rank)),
      el("div", { className: "grow" },
        el("h3", {}, hit.title || hit.recording_id),
        el("p", { className: "soft" }, facts.filter(Boolean).join(", "))),
      el("span", { className: "score", title: "Score" }, el("span", { className: "unseen" }, "score "), signed(hit.score).replace("+", ""))),
    bars(hit, longest, on.numbers),
    moved(hit, predicted, steered),
    el("div", { className: "bar" }, play,
      button("Search from here", `Search from here, ${name}`, () => on.from(hit)),
      el("span", { className: "grow" }),
      el("span", { role: "group", "aria-label": `Compare ${name}`, className: "pair" },
        el("span", { className: "soft", "aria-hidden": "true" }, "Compare as "),
        button("A", `A: ${name}`, () => on.choose("a", hit)), button("B", `B: ${name}`, () => on.choose("b", hit)))),
    el("div", { className: "progress" }));
  node.dataset.key = key_of(passage_of_hit(hit));
  return node;
}

function bars({ contributions, percentiles }, longest, numbers) {
  const rows = Object.entries(percentiles ?? {}), smallest = Math.min(...rows.map(([, share]) => share));
  const shares = rows.map(([name, share]) => bar(worded(name.replace(/\d+$/, (asked) => numbers[asked - 1])), {
    share, kind: "percentile", text: `${Math.round(share.toFixed(2) * 100)} %`, strong: share === smallest && rows.length > 1,
    title: "The share of all passages that fulfil this less. The smallest decides.",
  }));
  const parts = Object.entries(contributions).sort(([, one], [, other]) => other - one);
  const added = parts.map(([name, value]) => bar(worded(name), {
    share: Math.abs(value) / longest, kind: value < 0 ? "minus" : "plus", text: signed(value),
    title: `What this adds to ${rows.length ? "likeness" : "the score"}, or takes from it.`,
  }));
  return el("dl", { className: "bars" }, ...shares.flat(), ...added.flat());
}

function bar(name, { share, kind, text, title, strong }) {
  const filled = el("span", { className: kind });
  filled.style.width = `${Math.min(share, 1) * 100}%`;
  const label = el("dt", { title }, strong ? el("strong", {}, name) : name);
  const track = el("span", { className: "track", "aria-hidden": "true" }, filled);
  return [label, el("dd", { title }, track, el("span", { className: "value" }, text))];
}

/** How far the hit is from the passage in what was asked for more or less of. */
function moved({ predicted: there }, here, steered) {
  const told = steered.filter((name) => name in there && name in here)
    .map((name) => [worded(name), there[name] - here[name]])
    .map(([name, by]) => `${name}: ${by < 0 ? "less" : "more"} than the passage by ${Math.abs(by).toFixed(2)} standard deviations`);
  return told.length ? el("p", { className: "soft moved" }, told.join("; ")) : "";
}
