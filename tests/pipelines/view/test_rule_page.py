"""The rule box: its counts are those of `caplab select`, and so is what it saves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import pytest
from view_page import COLUMN, Page, Server, served

from curate.base.errors import ConfigError
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.dataset import Dataset
from pipelines.view.rule_previews import Previews
from pipelines.view.rule_sliders import sliders

RULE = "aesthetic >= 5 AND (nsfw < 0.5 OR 0.9 < watermark) AND length(alt_text) between 3 and 60"


def test_a_rule_shows_what_select_counts(server: Server, own: Dataset) -> None:
    for where, keep in [
        (RULE, False),
        (RULE, True),
        ("top_fraction(aesthetic, 0.3)", False),
        ("in_selection('good') and width > 100", False),
        ("true", False),
    ]:
        shown = server.get("/api/rule", where=where, keep_duplicates=int(keep))
        made = select(own, SelectSettings(name="s", where=where, keep_duplicates=keep,
                                          overwrite=True))  # fmt: skip
        assert (shown["stored"], shown["kept"]) == (made.stored, made.selected)
        told = [(step["rule"], step["removed_alone"], step["left"]) for step in shown["funnel"]]
        assert told == [(step.rule, step.removed_alone, step.left) for step in made.funnel]


def test_sliders_know_where_their_numbers_stand_and_what_lies_behind(server: Server) -> None:
    where = f"'ä𝄞' <> alt_text AND -1.5 <= aesthetic AND {RULE} AND top_fraction(blur, .25)"
    found = server.get("/api/rule", where=where)["sliders"]
    units = where.encode("utf-16-le")
    cut = [units[2 * one["start"] : 2 * one["end"]].decode("utf-16-le") for one in found]
    assert cut == ["-1.5", "5", "0.5", "0.9", "3", "60", ".25"]
    assert [one["operator"] for one in found] == [">=", ">=", "<", ">", ">=", "<=", "top"]
    columns = {column["name"]: column for column in server.get("/api/about")["columns"]}
    tail = server.get("/api/rule", where="original_bytes > 9")["sliders"][0]
    low, high = columns["original_bytes"]["low"], columns["original_bytes"]["high"]
    assert not tail["even"]  # a long tail is reached to its end, by bars that widen
    assert (tail["edges"][0], tail["edges"][-1]) == (low - 0.5, high + 0.5)
    for one in [*found, tail]:
        assert sum(one["counts"]) + one["missing"] == server.get("/api/about")["stored"]
        assert len(one["edges"]) == len(one["counts"]) + 1
    quartile = found[-1]
    shown = server.get("/api/rule", where="top_fraction(blur, .25)", keep_duplicates=1)
    assert shown["sliders"][0]["threshold"] == quartile["threshold"]
    cursor = server.opened.sample_tables().connection
    for rule in ("aesthetic >= 5::int", "blur", "nsfw = 0.5", "'5' > alt_text", "1 < 2",
                 "blur > 1e400"):  # fmt: skip
        assert sliders(cursor, rule) == []
    guarded = "CASE WHEN regexp_full_match(alt_text, '[0-9]+') THEN alt_text::INT > 5 END"
    length = "length(regexp_replace(alt_text, alt_text || '(', ''))"  # no pattern of any row works
    pattern = f"CASE WHEN width < 0 THEN {length} > 3 END"
    nested = "top_fraction(CASE WHEN top_fraction(blur, 0.5) THEN blur END, 0.5)"
    for where, many in ((guarded, 0), (pattern, 1), (nested, 1)):
        assert len(server.get("/api/rule", where=where)["sliders"]) == many


def test_examples_lie_next_to_the_cut_or_are_drawn_by_the_seed(server: Server) -> None:
    where = "aesthetic >= 5 and nsfw < 0.5"
    sides = server.get("/api/examples", where=where, edge=0, count=5)
    below, above = ([row["value"] for row in sides[side]] for side in ("below", "above"))
    assert below[0] < 5
    assert below == sorted(below, reverse=True)
    assert above[0] >= 5
    assert above == sorted(above)
    assert {row["dropped_by"] for row in sides["below"]} == {"aesthetic >= 5"}
    assert {row["dropped_by"] for row in sides["above"]} == {None}
    assert all(row["values"]["nsfw"] < 0.5 for row in [*sides["above"], *sides["below"]])
    one, again, other = (
        [row["key"] for row in server.get("/api/examples", where=where, side="dropped", seed=seed,
                                          count=9)["rows"]]
        for seed in (1, 1, 2)
    )  # fmt: skip
    assert one == again != other
    shown = server.get("/api/rule", where=where)
    for step, told in enumerate(shown["funnel"]):
        rows = server.get("/api/examples", where=where, side="dropped", step=step, count=200)
        dropped = {row["dropped_by"] for row in rows["rows"]}
        assert dropped == ({told["rule"]} if rows["rows"] else set())
        removed = told["removed_in_order"] + told["unscored_in_order"]
        assert len(rows["rows"]) == min(200, removed)
    kept = server.get("/api/order", where=where, side="kept")["total"]
    assert kept == shown["kept"]
    assert server.get("/api/order", where=where, side="dropped")["total"] == shown["stored"] - kept
    more = server.get("/api/order", where=where, side="kept", keep_duplicates=1)["total"]
    assert more == server.get("/api/rule", where=where, keep_duplicates=1)["kept"] > kept


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("aesthetik > 5", "did you mean 'aesthetic'"),
        ("aesthetic", "is no yes or no"),
        ("aesthetic >", "not a valid SQL expression"),
        ("nsfw < (select 1)", "holds a subquery"),
        ("true; drop table samples", "not a valid SQL expression"),
        ("random() > 0.5", "another answer on every run"),
        ("length(read_text('/etc/passwd')) > 1", "reads outside"),
        ("abs(" * 300 + "nsfw" + ")" * 300 + " > 1", "nests too deeply"),
        ("in_selection('../good')", "no selection"),
        ("unnest([1, 2]) > 1", "no rule about one sample"),
    ],
)
def test_a_rule_that_select_refuses_is_refused_with_its_sentence(
    server: Server, where: str, sentence: str
) -> None:
    answer = httpx.get(f"{server.address}/api/rule", params={"where": where}, timeout=60)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]


def test_a_newer_question_of_a_page_ends_the_one_before(server: Server) -> None:
    previews, begun = Previews(server.opened), Event()

    def endless() -> None:
        with previews.ask("true", False, "page") as (cursor, _):
            begun.set()
            cursor.execute("SELECT sum(hash(i)) FROM range(1000000000000) t(i)").fetchall()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(endless)
        begun.wait()
        with previews.ask("aesthetic > 5", False, "page") as (_, shown):
            assert shown.kept > 0
        with pytest.raises(ConfigError, match="newer rule"):
            running.result()


def test_a_rule_is_typed_moved_looked_at_and_saved(page: Page, own: Dataset) -> None:
    with served(own.directory) as server:
        page = Page(page.browser, server)
        page.go("#/rule")
        page.until("document.querySelector('#kept')?.innerText === "
                   f"'{server.get('/api/rule', where='true')['kept']}'")  # fmt: skip
        page.choose("#where", "aesthetic >= 5 and ns")
        assert page.texts(".completions code")[0] == "nsfw"
        page.until("document.querySelector('#wrong').innerText.includes('nsfw')")  # did you mean
        page.value(
            "document.querySelector('.completions li').dispatchEvent("
            "new Event('pointerdown', {bubbles: true, cancelable: true}))"
        )
        typed = page.value("document.querySelector('#where').value")
        assert typed == "aesthetic >= 5 and nsfw"
        page.choose("#where", f"{typed} < 0.5")
        kept = server.get("/api/rule", where="aesthetic >= 5 and nsfw < 0.5")["kept"]
        page.until(f"document.querySelector('#kept').innerText === '{kept}'")
        page.until("document.querySelectorAll('[data-side=above] img').length === 12")
        assert page.value("document.querySelector('#wrong').innerText") == ""
        before = page.value(_SOURCES)

        page.choose("#slider-0", "6.2")  # the number is rewritten where it stands
        where = "aesthetic >= 6.2 and nsfw < 0.5"
        assert page.value("document.querySelector('#where').value") == where
        shown = server.get("/api/rule", where=where)
        page.until(f"document.querySelector('#kept').innerText === '{shown['kept']}'")
        page.until(f"{_SOURCES} !== {before!r}")
        page.until("!document.querySelector('.asking')")
        assert shown["kept"] != kept
        rules = set(page.until("[...document.querySelectorAll('[data-side=dropped] .told')]"
                               ".map((one) => one.innerText)"))  # fmt: skip
        assert rules <= {f"{pre}{step['rule']}" for step in shown["funnel"]
                         for pre in ("", "no value: ")}  # fmt: skip
        drawn = page.value(_SOURCES)
        page.browser.press("o")
        page.until(f"{_SOURCES} !== {drawn!r}")

        page.choose("#name-of-selection", "good")  # which stands for another rule
        page.click(".save button[type=submit]")
        page.until("document.querySelector('.asks').innerText.includes('stands for')")
        page.click("#replace")
        page.until("document.querySelector('.notice.good')?.innerText.includes('Saved')")
        assert "where=aesthetic" in page.value("location.hash")
        # A rule that is half typed is refused, which the browser notes.
        assert [one for one in page.browser.complaints if "400" not in one] == []
        for width in (390, 1920):
            page.go(page.value("location.hash"), width)
            page.until("document.querySelectorAll('[data-side=kept] img').length > 3")
            assert page.fits()
            assert page.value("document.querySelector('#where').value") == where
        answer = server.post("/api/selections", {"name": "other", "where": where}).json()
        assert answer["selected"] == shown["kept"]
        recipe = next(one for one in server.get("/api/presets")["presets"] if one["where"])
        page.value(f"document.querySelector('#start-from').value = {recipe['name']!r}")
        page.value("document.querySelector('#start-from').dispatchEvent(new Event('change'))")
        page.choose("#name-of-selection", "recipe")
        page.click(".save button[type=submit]")
        page.until("document.querySelector('.notice.good')?.innerText.includes('recipe')")
    assert not select(own, SelectSettings(name="recipe", preset=recipe["name"])).fresh
    assert not select(own, SelectSettings(name="good", where=where)).fresh
    assert own.selection_keys("good") == own.selection_keys("other")
    assert len(own.selection_keys("good")) == shown["kept"]


_SOURCES = "[...document.querySelectorAll('.strip img')].map((one) => one.src).join(' ')"


def test_names_of_an_attacker_stay_text(page: Page) -> None:
    name = '"' + COLUMN.replace('"', '""') + '"'
    page.go("#/rule")
    page.until("document.querySelector('#kept')")
    page.choose("#where", "img")
    assert page.texts(".completions code") == [name]
    page.choose("#where", f"{name} >= 3")
    page.until("document.querySelector('.slider code')")
    assert page.texts(".slider code") == [name]
    page.choose("#where", f"'{COLUMN}' <> {COLUMN}")
    page.until("document.querySelector('#wrong').innerText.includes('img')")
    assert page.value("window.stolen") is None
    assert [one for one in page.browser.complaints if "400" not in one] == []
