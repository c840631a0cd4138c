// Sample grids of a run: a slider over the steps, each picture with its prompt.

import { el, fill, number } from "../dom.js";
import { onKeys } from "../keys.js";

const GAP = 4; // px between the tiles of a sheet, as train.validation writes it

/** @param {object} grids  steps: [{step, address}], prompts, width, height (px of a sheet). */
export function sheets({ steps, prompts, width, height }) {
  if (!steps.length) return el("p", { class: "muted" }, "The run has drawn no sample grid yet.");
  const tiles = places(prompts.length, width, height);
  const pictures = [];
  const picture = (about) => {
    const one = el("img", { decoding: "async", draggable: "false", ...about });
    pictures.push(one);
    return one;
  };
  const shown = el("output", { class: "step" });
  const slider = el("input", {
    type: "range", min: 0, max: steps.length - 1, step: 1, value: String(steps.length - 1), id: "grid-step",
    "aria-label": "Step of the sample grid", disabled: steps.length < 2, on: { input: () => draw() },
  });
  const draw = () => {
    const { step, address } = steps[Number(slider.value)];
    fill(shown, `step ${number(step)}`);
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const one of pictures) one.src = address;
  };
  const move = (by) => () => {
    slider.value = String(Math.max(0, Math.min(steps.length - 1, Number(slider.value) + by)));
    draw();
  };
  onKeys({ "[": ["grid of the step before", move(-1)], "]": ["grid of the next step", move(1)] });
  const body = tiles
    ? el("ol", { class: "tiles" }, prompts.map((prompt, index) => {
      const { x, y, side } = tiles[index];
      const place = { width: `${(100 * width) / side}%`, left: `${(-100 * x) / side}%`, top: `${(-100 * y) / side}%` };
      return el("li", {},
        el("span", { class: "tile" }, picture({ alt: prompt || "without a caption", style: place })),
        el("span", { class: "prompt", dir: "auto" }, prompt || el("em", { class: "muted" }, "no caption")));
    }))
    : el("div", { class: "sheet" }, picture({ alt: "Sample grid" }),
      el("p", { class: "note" }, "Captions of held-out pictures, from fixed noise; which, this run did not note."));
  draw();
  for (const { address } of steps.slice(-8)) new Image().src = address; // so that sliding does not wait
  return el("div", {},
    el("div", { class: "stepper" }, el("label", { for: "grid-step" }, "Step"), slider, shown,
      steps.length < 2 && el("span", { class: "note" }, "one grid so far; grid_every makes more")),
    body);
}

/** Where the tiles of a sheet lie, px; null where the sheet is of another layout. */
function places(count, width, height) {
  if (!count) return null;
  const columns = Math.ceil(Math.sqrt(count)), lines = Math.ceil(count / columns);
  const side = (width - GAP) / columns - GAP;
  if (!Number.isInteger(side) || lines * (side + GAP) + GAP !== height) return null;
  return [...Array(count).keys()].map((index) => ({
    x: GAP + (index % columns) * (side + GAP), y: GAP + Math.floor(index / columns) * (side + GAP), side,
  }));
}
