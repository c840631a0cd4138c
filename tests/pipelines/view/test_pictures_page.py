"""The page "Pictures" as somebody uses it, in a real browser."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from report_browser import Browser
from view_page import COLUMN, SCRIPT, Page, served

from curate.store.dataset import Dataset
from pipelines.view.app import STATIC

TOLD = """[...document.querySelectorAll('.grid-cell:not(.waiting)')]
    .sort((one, other) => one.dataset.index - other.dataset.index).map((one) => one.innerText)"""


def test_pictures_are_sorted_opened_and_remembered_in_the_address(page: Page) -> None:
    page.go("#/pictures")
    page.until(
        "document.images.length > 4 && [...document.images].every((one) => one.naturalWidth)"
    )
    facts = page.server.get("/api/about")
    told = f"{facts['stored']} pictures · {facts['failed']} failed"
    assert page.texts(".count") == [told]
    page.click(".count a")
    page.click(".failures a")
    page.until("document.querySelector('.failure')?.innerText.includes('no picture')")
    page.go("#/pictures")
    page.choose("#sort", "aesthetic")
    page.until("location.hash.includes('sort=aesthetic') && document.querySelector('.told')")
    down = [float(text) for text in page.value(TOLD)]
    assert down == sorted(down, reverse=True)
    page.browser.press("d")
    page.until(f"document.querySelector('#down')?.innerText.includes('low') && {TOLD}.length > 5")
    up = [float(text) for text in page.value(TOLD)]
    assert up == sorted(up)
    assert up[0] < down[0]
    page.choose("#selection", "good")
    page.until("location.hash.includes('selection=good') && document.querySelector('.told')")
    assert float(page.value(TOLD)[0]) >= 5.5
    for _ in range(3):  # the address holds all of it
        page.browser.press("ArrowRight")
    there, key = page.value("location.hash"), page.value("document.querySelector('#cell-3 a').hash")
    assert "at=3" in there
    page.browser.press("Enter")
    page.until(f"location.hash === {key!r}")
    page.value("history.back()")
    page.until("document.querySelector('#cell-3.focused')")
    assert page.value("location.hash") == there
    page.go(there)
    page.until("document.querySelector('#cell-3.focused')")


def test_texts_and_names_of_an_attacker_stay_text(page: Page) -> None:
    asked = urlencode({"sort": COLUMN, "show": f"{quote(COLUMN)},alt_text"})
    page.go(f"#/pictures?{asked}")
    page.until("document.querySelectorAll('.told').length > 8 && document.images.length > 3")
    assert any(SCRIPT in text for text in page.texts(".told"))
    assert page.value("document.images[0].alt") == SCRIPT
    assert COLUMN in page.texts("#sort option")
    page.value("document.querySelector('.menu').open = true")
    assert COLUMN in page.texts(".choices label")
    page.browser.press("Escape")
    page.until(
        "!document.querySelector('.menu').open && document.activeElement.tagName === 'SUMMARY'"
    )
    page.click(".skip")
    assert page.value("document.activeElement.id") == "main"
    assert page.value("location.hash").startswith("#/pictures?")
    assert page.value("window.stolen") is None
    assert page.value("[...document.images].every((one) => one.src.includes('/thumbnail/'))")
    assert page.browser.complaints == []
    scripts = sorted((STATIC / "js").rglob("*.js"))
    markup = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
    found = [(path.name, one) for path in scripts for one in markup if one in path.read_text()]
    assert len(scripts) > 4
    assert found == []


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_page_fits_its_window(page: Page, width: int) -> None:
    page.go("#/pictures?sort=aesthetic&show=aesthetic,alt_text,url", width, dark=width == 390)
    page.until("document.querySelectorAll('.told').length > 3")
    assert page.fits()
    ends = "((one) => one.getBoundingClientRect().right)"
    assert max(page.value(f"[...document.querySelectorAll('#pages a')].map{ends}")) <= width
    page.click(".menu summary")
    page.until("document.querySelector('.choices').getBoundingClientRect().right <= innerWidth")
    assert page.fits()
    page.browser.press("?")
    page.until("document.querySelector('#keys').open")
    assert page.fits()


def test_the_grid_follows_a_dataset_that_is_written(own: Dataset, browser: Browser) -> None:
    tables = [own.table_path(name, "00001") for name in ("samples", "scores")]
    for path in tables:
        path.rename(path.with_suffix(".later"))
    with served(own.directory) as server:
        page = Page(browser, server)
        page.go("#/pictures")
        page.until("document.querySelector('.grid-cell img')?.naturalWidth")
        before = page.texts(".count")[0]
        page.value("window.first = document.querySelector('#cell-0')")
        for path in tables:
            path.with_suffix(".later").rename(path)
        server.opened.changed()
        page.value("document.dispatchEvent(new Event('visibilitychange'))")  # it is looked at again
        page.until(f"document.querySelector('.count').innerText !== {before!r}")
        assert page.value("window.first === document.querySelector('#cell-0')")  # without a flicker
        stored = server.get("/api/about")["stored"]
        assert page.texts(".count")[0].startswith(f"{stored} pictures")


MILLION = """(async () => {
  const {windowedGrid} = await import('/static/js/grid.js');
  const place = document.createElement('div');
  place.className = 'grid-place';
  document.querySelector('main').replaceChildren(place);
  window.asked = 0;
  window.grid = windowedGrid(place, {
    total: 1000000, edge: 160, open: (row) => { window.opened = row.key; },
    rows: async (start, count) => {
      window.asked += count;
      return Array.from({length: count}, (_, i) => ({key: start + i}));
    },
    cell: (row) => { const one = document.createElement('b'); one.append(row.key); return one; },
  });
  window.grid.box.focus();
})()"""
IN_VIEW = """[...document.querySelectorAll('.grid-cell:not(.waiting)')].filter((cell) => {
  const [at, box] = [cell, window.grid.box].map((one) => one.getBoundingClientRect());
  return at.bottom > box.top && at.top < box.bottom && cell.innerText === cell.dataset.index;
}).map((cell) => Number(cell.dataset.index))"""
RESTED = "!document.querySelector('.grid-cell.waiting') && " + IN_VIEW + ".length > 10"


def test_a_million_pictures_scroll_by_pixels_and_by_the_whole_bar(page: Page) -> None:
    page.go("#/pictures")
    page.value(MILLION)
    page.until(RESTED)
    assert min(page.value(IN_VIEW)) == 0
    page.browser.press("End")
    page.until(RESTED + f" && {IN_VIEW}.includes(999999)")
    page.value("void (grid.box.scrollTop = grid.box.scrollHeight / 2)")  # the bar is dragged
    middle = page.until(RESTED + f" && {IN_VIEW}[0] < 600000 && {IN_VIEW}[0]")
    assert middle == pytest.approx(500_000, abs=200)
    # A turn of the wheel moves by what it says, although the bar stands for seven times as much.
    top = f"document.getElementById('cell-{middle}').getBoundingClientRect().top"
    before = page.value(top)
    page.value("void (grid.box.scrollTop += 90)")
    page.until(f"{top} !== {before}")
    assert page.value(top) == before - 90
    page.browser.press("Home")
    page.until(RESTED + f" && {IN_VIEW}.includes(0)")
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.browser.press(key)
    assert page.until("window.opened") == page.value("grid.columns()") + 1
    assert page.value("document.querySelectorAll('.grid-cell').length") < 200
    assert page.value("window.asked") < 3000
    assert page.browser.complaints == []
