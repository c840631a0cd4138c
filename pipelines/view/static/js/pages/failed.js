// The rows of the list that have no picture: how many for which reason, and each with its record.

import { get, link } from "../api.js";
import { el, fill, number } from "../dom.js";
import { onKeys } from "../keys.js";
import { pager } from "../record/pager.js";

const SIZE = 50;

export async function show(main, params) {
  const reason = params.get("reason") ?? "";
  const start = Math.max(0, Math.trunc(Number(params.get("start")))) || 0;
  const found = await get("/api/failed", { reason, start: String(start), count: SIZE });
  const pages = el("div", { class: "pager" });
  const go = (to) => { location.hash = link("failed", { reason, start: to || "" }); };
  const keys = pager(pages, { start, size: SIZE, total: found.total, what: "rows", go });
  onKeys({ ...keys, "a": ["all reasons", () => { location.hash = link("failed"); }] });
  fill(main, el("h1", {}, "Failed rows"), found.reasons.length
    ? [byReason(found.reasons, reason), pages, listed(found.rows)]
    : el("p", {}, "Every row has its picture."));
}

function byReason(reasons, chosen) {
  const all = reasons.reduce((sum, { count }) => sum + count, 0);
  const row = (name, count, told) => el("tr", {},
    el("td", { class: "number" }, number(count)),
    el("td", {}, el("a", { href: link("failed", { reason: name }), "aria-current": name === chosen && "true" },
      name || "all reasons")),
    el("td", {}, told));
  return el("table", { class: "reasons" }, el("tbody", {}, row("", all, ""), reasons.map((one) =>
    row(one.reason, one.count, [one.meaning, one.class && el("span", { class: "muted" }, ` (${one.class})`)]))));
}

function listed(rows) {
  return el("ul", { class: "failures" }, rows.map(({ key, row, url, alt_text: text, reason, detail }) => el("li", {},
    el("a", { href: link(`sample/${key}`) }, url || `row ${number(row)}`),
    text && el("div", {}, text),
    el("div", { class: "note" }, reason, detail && `: ${detail}`))));
}
