// Groups of copies by level of the search, the largest first.

import { get, remember } from "../api.js";
import { el, fill, number } from "../dom.js";
import { onKeys } from "../keys.js";
import { groupOf } from "../record/group.js";
import { pager } from "../record/pager.js";

const SIZE = 20;
const LEVELS = {
  exact: "Equal files, or equal pixels",
  near: "Equal ones and edited copies, decided on the pixels",
  embedding: "Equal ones, edited copies, and those that only embeddings proposed",
  semdedup: "Equal ones and near embeddings; nothing is verified",
};

export async function show(main, params) {
  let method = params.get("method") ?? "";
  let start = Math.max(0, Number(params.get("start")) || 0);
  const tabs = el("div", { class: "segmented field", role: "group", "aria-label": "Level of the search" });
  const pages = el("div", { class: "pager" });
  const meaning = el("p", { class: "soft" });
  const groups = el("div", { class: "groups" });
  const below = el("div", { class: "pager" });
  fill(main, el("div", { class: "tools" }, tabs, pages), meaning, groups, below);

  const draw = async () => {
    const found = await get("/api/copies", { method, start: String(start), count: SIZE });
    method = found.method;
    remember("copies", { method, start: start || "" });
    fill(tabs, Object.entries(found.methods).map(([name, count]) => el("button", {
      type: "button", "aria-pressed": String(name === method), title: LEVELS[name],
      on: { click: () => { method = name; start = 0; draw(); } },
    }, `${name} ${number(count)}`)));
    fill(meaning, `${LEVELS[method] ?? ""}. Kept is the best by ${found.quality.join(", then ")}.`);
    fill(groups, found.groups.map((group) => groupOf(group, { quality: found.quality })));
    const go = (to) => { start = to; draw().then(() => main.scrollIntoView()); };
    const about = { start, size: SIZE, total: found.total, what: "groups", go };
    pager(below, about, true);
    onKeys(pager(pages, about));
  };
  await draw();
}
