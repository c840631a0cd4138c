// A training run: curves, validation by caption kind, sample grids by step, receipt, settings.

import { get, link } from "../api.js";
import { el, fill, number } from "../dom.js";
import { figure, lineChart } from "../runs/chart.js";
import { named } from "../mark.js";
import { sheets } from "../runs/sheets.js";

const AGAIN = 10_000; // ms between two looks at a run that goes on

export async function show(main, params) {
  const asked = { arm: params.get("arm"), seed: params.get("seed") };
  let waiting = 0, ended = false, seen = "";
  const draw = async () => {
    const run = await get("/api/run", asked);
    if (ended) return;
    const now = JSON.stringify([run.done, run.finished, run.grids]);
    if (now !== seen) fill(main, page(run));
    seen = now;
    if (!run.finished) waiting = setTimeout(draw, AGAIN);
  };
  await draw();
  return () => { ended = true; clearTimeout(waiting); };
}

function page(run) {
  return [
    run.of_study && el("p", { class: "way" }, el("a", { href: link("study") }, "← the study"), run.arm && ` · ${run.arm}, seed ${run.seed}`),
    el("h1", {}, run.name),
    el("p", { class: "muted" }, run.finished
      ? run.summary.map(([label, value]) => `${label}: ${typeof value === "number" ? figure(value) : value}`).join(" · ")
      : `Step ${number(run.done)}${run.steps ? ` of ${number(run.steps)}` : ""}; the run goes on, and so does this page.`),
    el("h2", {}, "Sample grids"), sheets(run.grids),
    el("h2", {}, "Curves"),
    run.curves.length
      ? el("div", { class: "plots" }, run.curves.map((curve) => lineChart(curve)))
      : el("p", { class: "muted" }, "No metrics are written yet."),
    validation(run), receipt(run),
    el("h2", {}, "Settings"),
    run.settings.map(({ title, pairs }, index) => el("details", { class: "settings", open: index === 0 },
      el("summary", {}, title, " ", el("small", { class: "muted" }, number(pairs.length))),
      el("dl", { class: "pairs" }, pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))))),
    el("p", { class: "note" }, run.directory),
  ];
}

function validation(run) {
  const last = Object.entries(run.validation).map(([kind, { losses }]) => ({ kind, loss: losses.at(-1) }));
  if (!last.length) return null;
  const empty = last.find(({ kind }) => kind === "empty")?.loss ?? null;
  last.sort((one, other) => one.loss - other.loss);
  const most = Math.max(...last.map(({ loss }) => loss ?? 0)) || 1;
  const digits = Math.max(0, 3 - Math.ceil(Math.log10(most)));
  const steps = Object.values(run.validation)[0].steps;
  const learnt = new Set(run.receipt.kinds.map(({ kind }) => kind));
  const lines = Object.entries(run.validation).filter(([kind]) => learnt.has(kind) || kind === "empty")
    .map(([kind, own]) => ({ name: title(kind), steps: own.steps, values: own.losses, kind }));
  const marks = Object.fromEntries(lines.map(({ kind, name }) => [name, run.marks[kind]]).filter(([, mark]) => mark));
  return [
    el("h2", {}, "Validation by what the model is told"),
    el("p", { class: "note" }, "Mean loss of held-out pictures at fixed noise, by step ", number(steps.at(-1)),
      ". The further a kind lies below “no caption”, the more the model makes of it; losses of different captions are not comparable as quality."),
    el("div", { class: "validation" },
      steps.length > 1 && lineChart({ title: "validation loss, logarithmic", logarithmic: true, lines }, marks),
      el("div", { class: "scroll" }, el("table", {},
        el("thead", {}, el("tr", {}, ["captions", "loss", "against no caption", ""].map((text, index) =>
          el("th", { scope: "col", class: index && "number" }, text)))),
        el("tbody", {}, last.map(({ kind, loss }) => el("tr", {},
          el("th", { scope: "row" }, kind === "empty" ? el("em", {}, title(kind)) : named(kind, run.marks)),
          el("td", { class: "number" }, number(loss, digits)),
          el("td", { class: "number" }, kind === "empty" || empty === null ? "" : signed((loss - empty) / empty)),
          el("td", { class: "barcell" }, el("span", { class: `level ${run.marks[kind]?.css ?? "plain"}`, style: { width: `${(100 * loss) / most}%` } }))))))))
  ];
}

function receipt(run) {
  const { kinds, draws, dropped, dropout, there, unknown_words: unknown } = run.receipt;
  if (!kinds.length) return null;
  const share = (value) => (value === null || value === undefined ? "–" : `${number(100 * value, 2)}%`);
  const unread = Object.entries(unknown).filter(([, part]) => part > 0);
  return [
    el("h2", {}, "Receipt"),
    el("p", { class: "note" }, there
      ? ["Which captions the run was really trained on: ", number(draws), " draws, of which ", number(dropped),
        ` were emptied (${share(draws ? dropped / draws : 0)}${dropout === null ? "" : `, ${share(dropout)} declared`}), so that the model learns to draw without a caption.`]
      : run.finished ? "This run has no receipt." : "It is written when the run ends."),
    el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ["captions", "declared", "drawn", "draws", "emptied", "texts cut short"].map((text, index) =>
        el("th", { scope: "col", class: index && "number" }, text)))),
      el("tbody", {}, kinds.map((row) => el("tr", {},
        el("th", { scope: "row" }, named(row.kind, run.marks)),
        el("td", { class: "number" }, share(row.declared)), el("td", { class: "number" }, share(row.drawn)),
        [row.draws, row.dropped, row.cut].map((value) => el("td", { class: "number" }, number(value)))))))),
    unread.length > 0 && el("p", { class: "note" }, "Words that the model cannot read: ",
      unread.map(([texts, part]) => `${share(part)} of ${texts}`).join(", "), "."),
  ];
}

const title = (kind) => (kind === "empty" ? "no caption" : kind);
const signed = (part) => `${part > 0 ? "+" : ""}${number(100 * part, 1)}%`;
