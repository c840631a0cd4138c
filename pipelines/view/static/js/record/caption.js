// One caption as a cell: who wrote it, what the gates said, how it fits, its text, its mark.

import { el, number } from "../dom.js";
import { named } from "../mark.js";
import { controls, orphan } from "./marking.js";
import { figure, said } from "./text.js";

const COUNTS = [["words", "word"], ["clip_tokens", "CLIP token"], ["t5_tokens", "T5 token"]];
const FITS = [
  ["clip_similarity", "similarity"],
  ["clip_sentence_mean", "of sentences"],
  ["clip_sentence_min", "least sentence"],
];

/**
 * @param {object} options  `name`: instead of kind and source, for who looks blind; `meanings`: gate
 *   -> what its flag means; `rest`: leads to the whole text; `whole`: gives it; `more`: nodes below.
 */
export function captionCell(caption, { name = null, meanings = {}, rest = null, whole, more = null } = {}) {
  const text = caption.text ?? (caption.status === "ok" ? null : caption.raw_text ?? null);
  const spoken = [...new Set([...(caption.flags ?? []), ...(caption.reason ? [caption.reason] : [])])];
  return el(
    "article",
    { class: `caption ${caption.status}`, tabindex: caption.markable && name !== "" ? 0 : null },
    el("header", {},
      el("strong", {}, name ?? named(caption.kind)),
      caption.sample_index > 0 && el("span", { class: "soft" }, `no. ${number(caption.sample_index + 1)}`),
      name === null && caption.source !== caption.kind && el("span", { class: "soft source" }, caption.source),
      el("span", { class: `status ${caption.status}` }, caption.status === "ok" ? "accepted" : caption.status),
      spoken.map((gate) => el("span", {
        class: gate === caption.reason ? "gate reason" : "gate", title: meanings[gate] ?? "",
      }, gate.replaceAll("_", " ")))),
    said(text, { characters: caption.characters ?? null, rest }),
    measures(caption),
    caption.detail && el("p", { class: "soft" }, caption.detail),
    more,
    caption.markable && controls(caption, whole ?? (async () => text)),
    caption.gone && orphan(caption.gone),
  );
}

function measures(caption) {
  const parts = COUNTS.filter(([column]) => caption[column] != null)
    .map(([column, label]) => [
      caption[column] === 1 ? label : `${label}s`, number(caption[column]), column === "clip_tokens" && caption[column] > 77,
    ]);
  for (const [column, label] of FITS) {
    // One sentence has the same cosine three times.
    const repeats = column !== "clip_similarity" && caption[column] === caption.clip_similarity;
    if (caption[column] != null && !repeats) parts.push([label, figure(caption[column])]);
  }
  if (caption.alt_clip_similarity != null) parts.push(["of the alt text", figure(caption.alt_clip_similarity)]);
  if (caption.language) parts.push(["", caption.language]);
  if (!parts.length) return null;
  return el("dl", { class: "measures" }, parts.map(([label, value, over]) =>
    el("div", { class: over && "over", title: over && "above 77: CLIP does not read the rest" },
      el("dt", {}, label), el("dd", {}, value))));
}
