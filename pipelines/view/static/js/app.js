// The shell: which page stands at which address, the navigation, and what went wrong.
//
// #/NAME?parameters shows js/pages/NAME.js; #/sample/KEY gives the page the parameter `key`.
// A page exports `async show(main, params)` and may return a function that is called on leaving.

import { about, link } from "./api.js";
import { el, fill, notice } from "./dom.js";
import { clearKeys, listKeys } from "./keys.js";
import { know } from "./mark.js";

const PAGES = {
  pictures: { title: "Pictures" },
  rule: { title: "Rule" },
  failed: { title: "Failed rows", within: "pictures" },
  sample: { title: "A picture", rest: "key", within: "pictures" },
  copies: { title: "Copies" },
  captions: { title: "Captions" },
  search: { title: "Search" },
  run: { title: "Run", within: "study" },
  study: { title: "Study" },
};

const main = document.getElementById("main");
let leave = null;
let turn = 0;

/** {name, params} of an address. */
function place(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [name, ...rest] = path.split("/");
  const params = new URLSearchParams(query);
  if (rest.length && PAGES[name]?.rest) params.set(PAGES[name].rest, decodeURIComponent(rest.join("/")));
  return { name, params };
}

async function turnTo() {
  const mine = (turn += 1);
  leave?.();
  leave = null;
  clearKeys();
  document.getElementById("keys").close();
  const waiting = setTimeout(() => fill(main, el("p", { class: "empty" }, "Reading the tables…")), 400);
  try {
    const facts = await about(true).finally(() => clearTimeout(waiting));
    know(facts.marks);
    const { name, params } = place(location.hash);
    if (!Object.hasOwn(PAGES, name)) {
      if (location.hash.length > 2) notice("There is no such page here.");
      history.replaceState(null, "", link(facts.pages[0]));
      if (mine === turn) turnTo();
      return;
    }
    draw(facts, name);
    const page = await import(`./pages/${name}.js`).catch((error) => {
      throw new Error(`The page ${PAGES[name].title} could not be loaded (${error.message}).`);
    });
    if (mine !== turn) return;
    const shown = el("div", { class: `page ${name}` });
    fill(main, shown);
    const end = await page.show(shown, params);
    if (mine === turn) leave = end ?? null;
    else end?.();
  } catch (error) {
    if (mine === turn) failed(error);
  }
}

function draw(facts, name) {
  document.title = `${PAGES[name].title} · ${facts.name}`;
  fill(document.getElementById("name"), facts.name);
  document.getElementById("name").title = facts.directory;
  const current = facts.pages.includes(name) ? name : PAGES[name].within;
  fill(document.getElementById("pages"), facts.pages.map((one) =>
    el("a", { href: link(one), "aria-current": one === current && "page" }, PAGES[one].title)));
}

function failed(error) {
  if (error?.name !== "AbortError") notice(error?.message || String(error));
}

window.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  failed(event.reason);
});
window.addEventListener("error", (event) => failed(event.error ?? new Error(event.message)));
window.addEventListener("hashchange", turnTo);
document.getElementById("help").addEventListener("click", () => listKeys());
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // its address is no page's
  main.focus();
});
// A menu stays within the view.
document.addEventListener("toggle", ({ target }) => {
  const choices = target.querySelector(":scope > .choices");
  if (!choices) return;
  choices.style.left = "";
  const over = choices.getBoundingClientRect().right - document.documentElement.clientWidth + 12;
  if (over > 0) choices.style.left = `${-over}px`;
}, true);
// A menu closes when one turns to something else, and by Esc, which gives the focus back.
for (const kind of ["pointerdown", "focusin", "keydown"]) {
  document.addEventListener(kind, (event) => {
    for (const menu of document.querySelectorAll(".menu[open]")) {
      const left = kind === "keydown" ? event.key === "Escape" : !menu.contains(event.target);
      if (!left) continue;
      menu.open = false;
      if (kind === "keydown") menu.querySelector("summary").focus();
    }
  });
}
turnTo();
