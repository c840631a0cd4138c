// The answer of a study in words, its limits, and its arms with their runs.

import { link } from "../api.js";
import { el, number } from "../dom.js";
import { named } from "../mark.js";

export function answer(study) {
  const count = (value, one, more = `${one}s`) => `${number(value)} ${value === 1 ? one : more}`;
  const answers = Object.entries(study.answers);
  const sentences = answers.length ? answers
    : [["", study.headline.map((sentence) => ({ sentence, claimed: false }))]];
  return [
    el("h1", {}, study.name),
    el("p", { class: "muted" },
      `${count(study.arms.length, "arm")}, ${count(study.total, "prompt")}, ${count(study.noises.length, "noise")} each.`,
      study.decided.name && ` Decided by ${study.decided.label}${study.decided.meaning ? ` (${study.decided.meaning})` : ""} on ${study.decided_on}.`),
    study.exploratory && el("p", { class: "notice bad" }, "Exploratory: one training seed an arm, so nothing is claimed."),
    el("div", { class: "answers" },
      el("section", { class: "card" }, sentences.map(([heading, tests]) => [
        sentences.length > 1 && el("h3", {}, heading),
        el("ul", { class: "verdicts" }, tests.map((test) => el("li", { class: test.claimed ? "claimed" : "open" }, test.sentence))),
      ]), el("p", { class: "note" }, "Green: shown, after adjustment for all that was declared. Grey: not shown.")),
      el("section", { class: "card" }, el("table", { class: "arms-list" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "arm"), el("th", { scope: "col", class: "number" }, study.decided.label),
          el("th", { scope: "col" }, "training runs, by seed"))),
        el("tbody", {}, study.arms.map((arm) => el("tr", {},
          el("th", { scope: "row" }, named(arm.name, study.marks), el("span", { class: "note" }, arm.learnt)),
          el("td", { class: "number" }, el("strong", {}, arm.mean || "–"), el("br"), el("span", { class: "note" }, arm.interval)),
          el("td", {}, el("span", { class: "seeds" }, arm.seeds.map((seed, index) => (arm.there[index]
            ? el("a", { href: link("run", { arm: arm.name, seed: String(seed) }), title: `The run of ${arm.name} with seed ${seed}` }, String(seed))
            : el("span", { class: "muted", title: "its run is not here" }, String(seed)))))))))))),
    study.limits.length > 0 && el("details", { class: "limits" },
      el("summary", {}, "What this study cannot show"),
      el("ul", {}, study.limits.map((limit) => el("li", {}, limit)))),
  ];
}
