// Marks of captions: good, bad, or better in one's own words; each stored when it is made.

import { post } from "../api.js";
import { el, fill, notice } from "../dom.js";
import { marked } from "./text.js";

const done = []; // [caption, mark before], the latest last
const WORDS = { good: "Good", bad: "Bad", edited: "Edited" };

/** The controls of a caption and what redraws them, while it is shown. */
const places = new WeakMap();

/** Mark a caption; null takes the mark away. */
export async function mark(caption, name, text = null) {
  const stale = caption.mark?.stale;
  const answer = await sent(caption, name, text);
  if (answer) done.push([caption, stale ? null : answer.before]); // an earlier text's cannot come back
}

/** Take the latest mark back, to what it was before. */
export async function undo() {
  const latest = done.pop();
  if (!latest) {
    notice("There is nothing to take back.", "info");
    return;
  }
  const [caption, before] = latest;
  await sent(caption, before?.mark ?? null, before?.text ?? null);
  notice(before ? `The mark is ${WORDS[before.mark].toLowerCase()} again.` : "The mark is taken back.", "info");
}

/** What takes away a mark whose caption is not there any more; `about` names that caption. */
export function orphan(about) {
  const button = el("button", { type: "button", on: { click: async () => {
    await post("/api/marks", { ...about, mark: null });
    button.closest(".caption").remove();
    document.dispatchEvent(new CustomEvent("marked"));
  } } }, "Take this mark away");
  return el("div", { class: "marking" },
    el("p", { class: "marked" }, `Your mark of ${about.source}’s ${about.kind} caption, which is not there any more.`),
    el("div", { class: "buttons" }, button));
}

/** The answer of the server; null where this caption still waits for one. */
async function sent(caption, name, text) {
  const place = places.get(caption);
  if (place?.node.hasAttribute("aria-busy")) return null;
  place?.node.setAttribute("aria-busy", "true");
  try {
    const { key, kind, source, sample_index, text_sha256 } = caption;
    const about = { key, kind, source, sample_index, text_sha256 };
    const answer = await post("/api/marks", { ...about, mark: name, text: name === "edited" ? text : null });
    caption.mark = answer.mark;
    place?.draw();
    document.dispatchEvent(new CustomEvent("marked"));
    return answer;
  } finally {
    place?.node.removeAttribute("aria-busy");
  }
}

/**
 * The buttons of a caption, and its mark. `whole` gives the whole text where the caption holds only
 * its start.
 */
export function controls(caption, whole = async () => caption.text) {
  const place = el("div", { class: "marking" });
  let writing = null;
  const draw = () => {
    const now = caption.mark;
    // A mark of an earlier text says nothing of this one: pressing it again says it of this one.
    const is = (name) => now?.mark === name && !now.stale;
    const button = (name, key, call) => el("button", {
      type: "button", class: `mark-${name}`, dataset: { mark: name }, title: `${WORDS[name]} (${key})`,
      "aria-pressed": String(is(name)), on: { click: call },
    }, name === "edited" ? "Edit" : WORDS[name]);
    const toggle = (name) => () => mark(caption, is(name) ? null : name);
    const focused = place.contains(document.activeElement);
    fill(
      place,
      el("div", { class: "buttons" },
        button("good", "g", toggle("good")), button("bad", "b", toggle("bad")), button("edited", "e", write)),
      now && el("p", { class: `marked ${now.mark}` }, sentence(now)),
      now?.mark === "edited" && el("div", { class: "said edited", dir: "auto" }, marked(now.text)),
      writing,
    );
    if (focused && !writing) place.closest("[tabindex]")?.focus({ preventScroll: true });
  };
  const write = async () => {
    if (writing) return;
    const text = caption.mark?.mark === "edited" ? caption.mark.text : await whole();
    const area = el("textarea", { rows: 4, "aria-label": "The caption in your words", dir: "auto", value: text ?? "" });
    const close = () => {
      writing = null;
      draw();
      place.closest("[tabindex]")?.focus();
    };
    const save = async () => {
      await mark(caption, "edited", area.value);
      close();
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
      else if (event.key === "Escape") close();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    writing = el("div", { class: "writing" }, area,
      el("div", { class: "buttons" },
        el("button", { type: "button", class: "main", on: { click: save } }, "Save"),
        el("button", { type: "button", on: { click: close } }, "Cancel"),
        el("small", {}, "Ctrl+Enter saves, Esc leaves it as it was")));
    draw();
    area.focus();
  };
  places.set(caption, { node: place, draw });
  draw();
  return place;
}

function sentence(now) {
  const old = now.stale ? "; of an earlier text, which its captioner has replaced" : "";
  return `${WORDS[now.mark]}, ${String(now.created_at).slice(0, 10)}${old}`;
}

/** Keys of marking for the caption that has the focus, and of moving among captions. */
export function markingKeys(main) {
  const cells = () => [...main.querySelectorAll(".caption[tabindex]")];
  const press = (name) => () => {
    const cell = document.activeElement?.closest?.(".caption[tabindex]") ?? cells()[0];
    cell?.focus();
    cell?.querySelector(`[data-mark="${name}"]`)?.click();
  };
  const move = (step) => () => {
    const all = cells();
    const here = all.indexOf(document.activeElement?.closest?.(".caption[tabindex]"));
    const cell = all[here < 0 ? 0 : Math.min(all.length - 1, Math.max(0, here + step))];
    cell?.focus();
    cell?.scrollIntoView({ block: "nearest" });
  };
  return {
    g: ["good", press("good")],
    b: ["bad", press("bad")],
    e: ["edit", press("edited")],
    u: ["take the last mark back", undo],
    j: ["next caption", move(1)],
    k: ["caption before", move(-1)],
  };
}
