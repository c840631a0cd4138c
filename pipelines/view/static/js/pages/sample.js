// All that is known of one picture, on one page.

import { about, get, link, pictureOf } from "../api.js";
import { el, fill, number } from "../dom.js";
import { onKeys } from "../keys.js";
import { captionCell } from "../record/caption.js";
import { groupOf } from "../record/group.js";
import { markingKeys } from "../record/marking.js";
import { figure, marked, said } from "../record/text.js";

export async function show(main, params) {
  const key = params.get("key") ?? "";
  const [facts, record] = await Promise.all([about(), get(`/api/sample/${encodeURIComponent(key)}`)]);
  const around = await neighbours(params);
  const { sample } = record;
  const stored = sample.status === "stored";
  fill(
    main,
    el("div", { class: "way" }, around.links, el("code", { class: "key" }, key),
      stored && facts.searchable && el("a", { href: link("search", { like: key }) }, "Pictures like this one")),
    el("div", { class: "record" },
      el("div", { class: "picture" }, stored ? picture(record) : failure(record)),
      el("div", { class: "facts" }, origin(record), selections(record))),
    captions(record),
    scores(record),
    duplicates(record),
    references(record),
  );
  onKeys({ ...around.keys, ...markingKeys(main) });
}

/** What decides an order; with `at`, the place in it, one comes from there. */
const ORDER = ["sort", "down", "selection", "where", "side", "keep_duplicates", "random", "captions"];

/** Links to the pictures before and behind in the order that one came from. */
async function neighbours(params) {
  if (!params.has("at")) return { links: null, keys: {} };
  const way = Object.fromEntries(ORDER.map((name) => [name, params.get(name)]));
  const { order, total } = await get("/api/order", way);
  const at = Number(params.get("at")) || 0;
  const first = Math.max(0, at - 1);
  const { rows } = await get("/api/window", { order, start: String(first), count: at - first + 2 });
  const to = (place) => rows[place - first] && link(`sample/${rows[place - first].key}`, { ...way, at: String(place) });
  const [before, behind] = [at > 0 ? to(at - 1) : null, to(at + 1)];
  const arrow = (href, label, sign) => (href ? el("a", { href, class: "step", "aria-label": label, title: label }, sign)
    : el("span", { class: "step off", "aria-hidden": "true" }, sign));
  const go = (href) => () => { if (href) location.hash = href; };
  return {
    links: [arrow(before, "Picture before (←)", "‹"),
      el("span", { class: "soft" }, `${number(at + 1)} of ${number(total)}`),
      arrow(behind, "Next picture (→)", "›")],
    keys: { ArrowLeft: ["picture before", go(before)], ArrowRight: ["next picture", go(behind)] },
  };
}

function picture({ key, sample }) {
  const address = pictureOf(key);
  return el("figure", {},
    el("a", { href: address, target: "_blank", title: "The file as it is stored" },
      el("img", { src: address, alt: sample.alt_text || "without a text", width: sample.width, height: sample.height })),
    el("figcaption", {}, `stored: ${number(sample.width)} × ${number(sample.height)}, ${sample.format}`));
}

function failure({ sample, failure: why }) {
  return el("div", { class: "card failure" },
    el("h2", {}, "This row has no picture"),
    el("p", {}, el("strong", {}, sample.reason), why.meaning ? `: ${why.meaning}` : ""),
    sample.detail && said(sample.detail),
    el("p", { class: "soft" }, why.class,
      why.may_pass ? "; `caplab curate … --retry-failed` tries it again" : ""));
}

function list(rows) {
  const listed = rows.filter((row) => row && row[1] !== null && row[1] !== undefined && row[1] !== false && row[1] !== "");
  return el("dl", { class: "facts-list" }, listed.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function origin({ sample, host, list: from, input, changes }) {
  const web = /^https?:\/\//i.test(sample.url ?? "");
  const came = [
    sample.original_width && `${number(sample.original_width)} × ${number(sample.original_height)}`,
    sample.original_format,
    sample.original_bytes && `${number(sample.original_bytes)} bytes`,
  ].filter(Boolean).join(", ");
  return el("section", {},
    el("h2", {}, "Where it came from"),
    list([
      ["List", from.input && marked(from.input)],
      ["Row", `${number(sample.row)}${from.rows ? ` of ${number(from.rows)}, from 0` : ""}; shard ${sample.shard}`],
      ["URL", sample.url && (web
        ? el("a", { href: sample.url, target: "_blank", rel: "noreferrer noopener" }, marked(sample.url))
        : el("span", {}, marked(sample.url)))],
      ["Host", host],
      ["As it came", came],
      ["Made of it", sample.status === "stored" && (changes.length
        ? el("ul", {}, changes.map((one) => el("li", {}, one)))
        : "nothing: size and format are as they came")],
      ["sha256", sample.sha256 && el("code", {}, sample.sha256)],
      ["Alt text", said(sample.alt_text)],
      ...input.map(({ name, value }) => [name, said(String(value))]),
    ]));
}

function scores({ scores: groups, clip_model: model }) {
  if (!groups.length) return null;
  const value = ({ value: found, type }) => {
    if (found === null) return el("span", { class: "soft" }, "none");
    if (type === "bool") return found ? "yes" : "no";
    return type === "text" ? said(String(found)) : figure(found);
  };
  // Most flags of a text are not set; they share a line.
  const unset = (group) => group.scores.filter((score) => score.type === "bool" && score.value === false);
  return el("section", {},
    el("h2", {}, "Scores"),
    model && el("p", { class: "soft" }, "CLIP: ", marked(model)),
    el("div", { class: "score-groups" }, groups.map((group) => el("div", { class: "card" },
      el("h3", {}, group.group),
      unset(group).length > 0 && el("p", { class: "soft unset" }, `Not: ${unset(group).map((score) => bare(score, group)).join(", ")}`),
      el("table", {}, el("tbody", {}, group.scores.filter((score) => !unset(group).includes(score)).map((score) => el("tr", {},
        el("th", { scope: "row", title: score.name }, bare(score, group)),
        score.type === "number" || score.unit
          ? [el("td", { class: "number" }, value(score)), el("td", { class: "soft unit" }, score.unit)]
          : el("td", { colspan: 2 }, value(score))))))))));
}

/** What stands in the group's title needs no saying. */
function bare(score, group) {
  return group.group === "The alt text" ? score.label.replace(/^text /, "") : score.label;
}

function captions({ captions: rows, key, gates }) {
  return el("section", {},
    el("h2", {}, "Texts"),
    rows.length ? null : el("p", { class: "soft" }, "No captions are stored of this picture."),
    el("div", { class: "cells" }, rows.map((caption) => captionCell({ ...caption, key }, {
      meanings: gates,
      more: [
        caption.raw_text !== null && caption.text !== null && caption.raw_text !== caption.text &&
          el("details", {}, el("summary", {}, "Before repair"), said(caption.raw_text)),
        scored(caption),
        provenance(caption),
      ],
    }))));
}

function scored({ scored: scores }) {
  const rows = Object.entries(scores).filter(([, value]) => value !== null);
  if (!rows.length) return null;
  return el("details", {}, el("summary", {}, "Its scores"),
    list(rows.map(([name, value]) => [name.replaceAll("_", " "), figure(value)])));
}

function provenance(caption) {
  if (caption.engine === "none") return null; // it came with the picture
  const json = (text) => text && el("code", {}, marked(text));
  const size = caption.sent_width && `${caption.sent_width} × ${caption.sent_height}`;
  return el("details", {}, el("summary", {}, "Who wrote it, and how"), list([
    ["Engine", caption.engine !== "human" && caption.engine],
    ...(caption.engine === "human" ? person(caption) : [
      ["Model", caption.model && marked(caption.model)],
      ["Revision", caption.model_revision && el("code", {}, caption.model_revision)],
      ["Prompt", caption.prompt_id && marked(`${caption.prompt_id}${caption.prompt_sha256 ? ` (${caption.prompt_sha256.slice(0, 12)})` : ""}`)],
      ["Shown", json(caption.prompt_variables)],
    ]),
    ["Alt text shown", caption.alt_text_shown === null ? null : caption.alt_text_shown ? "yes" : "no"],
    ["Picture as sent", size],
    ["Sampling", json(caption.sampling)],
    ["Seed", caption.seed === null ? null : String(caption.seed)],
    ["Attempts", caption.attempts],
    ["Ended by", caption.finish_reason],
    ["Tokens", caption.output_tokens && `${number(caption.prompt_tokens)} read, ${number(caption.output_tokens)} written`],
    ["Seconds", caption.latency_seconds === null ? null : figure(caption.latency_seconds)],
    ["Written", caption.created_at && String(caption.created_at).slice(0, 19).replace("T", " ")],
    ["Versions", json(caption.versions)],
  ]));
}

/** Of a person's caption: in place of model and prompt stand what it is about, or its file. */
const person = ({ source, model, prompt_id: kind }) =>
  [["Person", source], kind ? ["About", marked(`${kind} by ${model}`)] : ["From", model && marked(model)]];

function selections({ selections: rows, sample }) {
  if (sample.status !== "stored") return null;
  const rule = (one) => {
    const values = Object.entries(one.values).map(([name, value]) => `${name} = ${value === null ? "none" : figure(value)}`);
    const sign = one.passed === true ? "✓" : one.passed === false ? "✗" : "?";
    return el("li", { class: one.passed === true ? "passed" : "failed-rule" },
      el("span", { class: "sign" }, sign), el("code", {}, marked(one.rule)),
      el("span", { class: "soft" }, marked(values.join(", "))));
  };
  return el("section", {},
    el("h2", {}, "Selections"),
    rows.length ? null : el("p", { class: "soft" }, "Nothing has been selected yet."),
    rows.map((one) => el("details", { class: "selection" },
      el("summary", {},
        el("strong", {}, one.name), " ",
        one.inside !== null &&
          el("span", { class: one.inside ? "status ok" : "status rejected" }, one.inside ? "in" : "out"),
        one.weight !== null && el("span", { class: "soft" }, ` weight ${figure(one.weight)}`),
        one.dropped_by && el("span", { class: "dropped" }, " dropped: ",
          el(one.dropped_by.step === "rule" ? "code" : "span", {}, marked(one.dropped_by.text)))),
      one.problem && el("p", { class: "soft" }, one.problem),
      one.dropped_by?.better && el("p", {},
        el("a", { href: link(`sample/${one.dropped_by.better}`) }, "the copy that is kept")),
      el("ul", { class: "rules" }, one.rules.map(rule)))));
}

function duplicates({ duplicates: groups, key }) {
  if (!groups.length) return null;
  // A wider level often finds nothing more: equal groups stand once.
  const told = new Map();
  for (const group of groups) {
    const equal = JSON.stringify([group.kept, group.why, group.size, group.members.map((one) => [one.key, one.by, one.distance])]);
    told.set(equal, [...(told.get(equal) ?? []), group]);
  }
  return el("section", {},
    el("h2", {}, "Copies"),
    [...told.values()].map((equal) =>
      groupOf(equal[0], { title: `${equal.map(({ method }) => method).join(", ")}: `, current: key })));
}

function references({ references: rows }) {
  if (!rows.length) return null;
  return el("section", {},
    el("h2", {}, "References that it shows"),
    el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ["Set", "Picture", "Purpose", "Found by", "Distance"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", {},
        el("td", {}, marked(row.references)), el("td", {}, el("code", {}, marked(row.reference))),
        el("td", {}, row.purpose), el("td", {}, row.method), el("td", { class: "number" }, figure(row.distance))))))));
}
