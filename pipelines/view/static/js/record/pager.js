// Pages of a long list whose rows differ in height.

import { el, fill, number } from "../dom.js";

/** Where in the list one is, with the ways on; `go(start)` shows another page. Below one page stands nothing. */
export function pager(place, { start, size, total, what, go }, below = false) {
  const last = Math.max(0, Math.floor((total - 1) / size) * size);
  const named = total === 1 ? what.replace(/s$/, "") : what;
  place.hidden = below && total <= size;
  const to = (target) => go(Math.min(last, Math.max(0, target)));
  const button = (label, name, target, off) =>
    el("button", { type: "button", "aria-label": name, title: name, disabled: off, on: { click: () => to(target) } }, label);
  const field = el("input", {
    type: "number", min: 1, max: Math.max(1, total), value: String(total ? start + 1 : 0),
    "aria-label": `Go to ${what} number`,
    on: { change: () => to(Math.floor((Number(field.value) - 1) / size) * size) },
  });
  fill(
    place,
    button("⇤", "First page", 0, start === 0),
    button("‹", "Page before (p)", start - size, start === 0),
    el("span", { class: "range" }, field,
      total ? ` to ${number(Math.min(total, start + size))} of ${number(total)} ${named}` : ` no ${what}`),
    button("›", "Next page (n)", start + size, start >= last),
    button("⇥", "Last page", last, start >= last),
  );
  return { n: ["next page", () => to(start + size)], p: ["page before", () => to(start - size)] };
}
