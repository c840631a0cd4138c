// Save the rule as a selection, under a name; a name that is taken asks for a word.

import { about, post } from "../api.js";
import { el, fill, notice, number } from "../dom.js";

/**
 * The form.
 *
 * @param current  () => the rule, as POST /api/selections takes it
 * @param saved  () => void, after the selection was written
 */
export function saving(current, saved) {
  const name = el("input", { type: "text", id: "name-of-selection", required: true, maxlength: "100",
    autocomplete: "off", spellcheck: "false", placeholder: "a name" });
  const button = el("button", { class: "main", type: "submit" }, "Save");
  const told = el("div", { class: "asks", role: "status" });

  async function save(overwrite) {
    button.disabled = true;
    fill(told, "Selecting…");
    try {
      const answer = await post("/api/selections", { name: name.value.trim(), ...current(), overwrite });
      if (answer.asks) {
        fill(told, el("span", {}, `${answer.asks} `),
          el("button", { type: "button", id: "replace", on: { click: () => save(true) } }, "Replace it"));
        return;
      }
      fill(told);
      notice(`${answer.fresh ? "Saved" : "Already saved"}: the selection ${answer.name} has ` +
        `${number(answer.selected)} of ${number(answer.stored)} samples.`, "good");
      await about(true);
      saved();
    } catch (error) {
      fill(told, el("span", { class: "wrong" }, error.message));
    } finally {
      button.disabled = false;
    }
  }

  name.addEventListener("input", () => fill(told));
  return el("form", { class: "save", on: { submit: (event) => { event.preventDefault(); save(false); } } },
    el("label", { for: name.id }, "Save as selection"), name, button, told);
}
