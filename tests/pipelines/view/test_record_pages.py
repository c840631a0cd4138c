"""A picture's record, groups of copies, captions side by side and marks, in a real browser."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from report_browser import Browser
from view_page import Page, served

from curate.export.run import export
from curate.export.settings import ExportSettings
from curate.store.captions import text_mark
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from pipelines.view.app import build_app
from pipelines.view.opened import find
from pipelines.view.order import Order
from pipelines.view.record.caption_rows import caption_rows
from pipelines.view.record.captions import caption_keys, caption_sets, shuffled_sentences
from pipelines.view.rows import make_order
from recaption.captioning.alt_texts import AltCaptionStage
from recaption.human.marks import Judged, set_mark

HOSTILE = "<script>window.stolen = 1</script>\u202e gnirts\x07 " + "x" * 100_000
TWO = "A red ball lies here. A blue box stands there 🎈. Nothing moves."


def key_press(browser: Browser, key: str) -> None:
    """A key, as from a keyboard."""
    text = {"text": key} if len(key) == 1 else {}
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, **text)


@pytest.fixture
def captioned(own: Dataset) -> Dataset:
    """A copy with alt texts, and three captions of another writer, of which one is hostile."""
    stage = AltCaptionStage()
    stage.open()
    for shard in own.shards():
        stage.run(own, shard)
    keys = own.read_table("captions", "00000", "generated")["key"].to_pylist()[:3]
    told = [
        {"text": HOSTILE, "status": "ok"},
        {"raw_text": "red red red", "status": "rejected", "reason": "loop", "flags": ["loop"]},
        {"text": TWO, "raw_text": TWO + " (said)", "status": "ok", "clip_similarity": 0.31},
    ]
    rows = [
        dict.fromkeys(CAPTIONS.names) | {"key": key, "kind": "short", "sample_index": 0} | one
        for key, one in zip(keys, told, strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=CAPTIONS)
    own.write_table("captions", table, "00000", "other")
    scored = {"key": keys[2], "kind": "short", "source": "other", "sample_index": 0}
    scored |= {"text_sha256": text_mark(TWO), "clip_sentences": 3}
    own.write_table("caption_scores", pa.Table.from_pylist([scored]), "00000", "other")
    own.write_selection("three", pa.array(keys), {"selected": 3, "where": "true"})
    return own


def test_a_record_shows_everything_and_hostile_texts_stay_text(captioned, browser):
    keys = captioned.read_table("captions", "00000", "other")["key"].to_pylist()
    set_mark(captioned, "00000", Judged(keys[0], "descriptive", "generated", 0), "good")
    rows = captioned.read_table("captions", "00000", "generated")
    captioned.write_table("captions", rows.filter(pc.field("key") != keys[0]), "00000", "generated")
    with served(captioned.directory) as server:
        page = Page(browser, server)
        for width in (390, 1280):
            page.go(f"#/sample/{keys[0]}", width)
            page.until("document.querySelector('.record img')?.naturalWidth")
            assert page.fits()
        assert page.value("window.stolen") is None
        said = page.texts(".caption .said")
        assert any(text.startswith("<script>window.stolen = 1</script>U+202E") for text in said)
        assert page.value("document.body.innerText.length") < 20_000  # folded
        page.click(".caption .more")
        page.until("document.body.innerText.length > 100_000")
        assert page.fits()
        # A mark whose caption is gone stands by itself, and can be taken away.
        assert "which is not there any more" in page.texts(".caption .marked")[0]
        assert server.get("/api/marks")["good"] == 1
        page.click(".caption .marked + .buttons button")
        page.until("!document.querySelector('.caption .marked')")
        assert server.get("/api/marks")["good"] == 0
        assert page.browser.complaints == []

        record = server.get(f"/api/sample/{keys[0]}")
        assert record["sample"]["status"] == "stored"
        assert [group["group"] for group in record["scores"]][-1] == "Further scores"
        inside = {one["name"]: one["inside"] for one in record["selections"]}
        assert inside["three"]
        (good,) = (one for one in record["selections"] if one["name"] == "good")
        passed = [rule["passed"] for rule in good["rules"]]
        assert good["inside"] is all(passed)
        if not all(passed):
            failed = good["rules"][passed.index(False)]
            assert good["dropped_by"]["text"] == failed["rule"]

        captions = server.get(f"/api/sample/{keys[2]}")["captions"]
        assert [one["scored"] for one in captions if one["source"] == "other"] == [
            {"clip_sentences": 3}
        ]

        # From a list one walks on, and a row that has no picture says why.
        rows = server.get("/api/window", order=server.get("/api/order")["order"], count=2)["rows"]
        page.go(f"#/sample/{rows[0]['key']}?at=0")
        page.until("document.querySelector('.way a.step')")
        key_press(browser, "ArrowRight")
        page.until(f"document.querySelector('.way .key')?.innerText === '{rows[1]['key']}'")
        samples = captioned.read_table("samples", "00000").to_pylist()
        failed_row = next(row for row in samples if row["status"] == "failed")
        page.go(f"#/sample/{failed_row['key']}")
        assert failed_row["reason"] in page.texts(".failure")[0]


def test_a_caption_is_edited_from_the_keyboard_and_found_in_the_export(
    captioned, browser, tmp_path
):
    with served(captioned.directory) as server:
        server.opened.by = "ada"
        page = Page(browser, server)
        page.go("#/captions?selection=three&sets=other/short,alt/alt")
        page.until("document.querySelectorAll('.caption-row').length === 3")
        shown = page.texts(".caption-row .slot:first-child .caption .said")
        row = next(i for i, text in enumerate(shown) if text == TWO)
        first = f"document.querySelectorAll('.caption-row')[{row}].querySelector('.caption')"
        page.value(f"{first}.focus()")
        key_press(browser, "g")
        page.until(f"{first}.querySelector('.marked.good')?.innerText.includes('Good, 20')")
        key_press(browser, "b")
        page.until(f"{first}.querySelector('.marked.bad')")
        key_press(browser, "u")
        page.until(f"{first}.querySelector('.marked.good')")
        key_press(browser, "e")
        page.until("document.activeElement.tagName === 'TEXTAREA'")
        assert page.value("document.activeElement.value") == TWO
        page.value("document.activeElement.value = 'a ball and a box </script>'")
        page.click(".writing .main")
        page.until(
            f"{first}.querySelector('.said.edited')?.innerText === 'a ball and a box </script>'"
        )
        page.until("document.querySelector('.count').innerText.startsWith('1 edited')")
        assert page.fits()
        assert page.browser.complaints == []

        about = server.get("/api/about")
        kinds = {one["kind"]: one for one in about["kinds"]}
        assert kinds["human"] == {"kind": "human", "sources": ["human-ada"], "count": 1}
        assert {*kinds} == {*about["marks"]}
        found = server.get("/api/order", captions="mark=edited&source=other")
        assert found["total"] == 1
        (line,) = (json.loads(line) for line in server.text("/api/marks.jsonl").splitlines())
        assert (line["mark"], line["text"]) == ("edited", "a ball and a box </script>")
        assert (line["judged_text"], line["who"]) == (TWO, "ada")

        # Its captioner writes it anew: the mark is of what it was, and no button is pressed.
        table = captioned.read_table("captions", "00000", "other")
        anew = [row | {"text": row["text"] and "anew"} for row in table.to_pylist()]
        table = pa.Table.from_pylist(anew, schema=table.schema)
        captioned.write_table("captions", table, "00000", "other")
        page.go(page.value("location.hash"))
        page.until("document.querySelectorAll('.caption-row').length === 3")
        page.until(f"{first}.querySelector('.marked')?.innerText.includes('of an earlier text')")
        assert page.value(f"{first}.querySelectorAll('[aria-pressed=true]').length") == 0

    settings = ExportSettings(
        selection="three",
        captions={"human": 0.5, "alt": 0.5},
        missing_captions="fallback",
        format="parquet",
    )
    done = export(captioned, tmp_path / "out", settings)
    assert done.samples == 3
    human = export(
        captioned,
        tmp_path / "human",
        ExportSettings(selection="three", captions={"human": 1.0}, format="parquet"),
    )
    assert (human.kinds, human.left_out) == ({"human": 1}, {"no_human_caption": 2})
    (shard,) = Path(tmp_path / "human" / "data").glob("*.parquet")
    (text,) = pq.read_table(shard)["text"].to_pylist()
    assert text == "a ball and a box </script>"


def test_captions_are_filtered_and_looked_at_blind(captioned):
    with served(captioned.directory) as server:

        def found(**filters: str) -> int:
            asked = "&".join(f"{name}={value}" for name, value in filters.items())
            return server.get("/api/order", captions=asked)["total"]

        assert found(kind="short") == 3
        assert found(status="rejected", gate="loop") == 1
        assert found(source="other", text="BLUE BOX") == 1
        assert found(source="other", text="%") == 0
        order = server.get("/api/order", captions="kind=short", selection="three")["order"]
        plain = server.get(
            "/api/captions", order=order, sets="other/short,alt/alt,generated/descriptive"
        )
        assert [len(row["captions"]) for row in plain["rows"]] == [3, 3, 3]
        names = [[one["source"] for one in row["captions"]] for row in plain["rows"]]
        blind = [
            [
                [one["source"] for one in row["captions"]]
                for row in server.get(
                    "/api/captions",
                    order=order,
                    blind=seed,
                    sets="other/short,alt/alt,generated/descriptive",
                )["rows"]
            ]
            for seed in (1, 1, 2, 3)
        ]
        assert blind[0] == blind[1]
        assert any(one != names for one in blind)
        assert [sorted(one) for one in blind[0]] == [sorted(one) for one in names]
        long = next(
            row
            for row in plain["rows"]
            for one in row["captions"]
            if (one["characters"] or 0) > 9000
        )
        assert max(len(one["text"] or "") for one in long["captions"]) == 4000
        refused = server.post(
            "/api/marks",
            {
                "key": long["key"],
                "kind": "short",
                "source": "other",
                "sample_index": 0,
                "text_sha256": "0",
                "mark": "good",
            },
        )
        assert refused.status_code == 409
        about = {"key": long["key"], "kind": "short", "source": "other", "sample_index": 2**70}
        assert server.post("/api/marks", about | {"mark": "good"}).status_code == 400
        assert captioned.caption_sources() == ["alt", "generated", "other"]
    shuffled = {shuffled_sentences(TWO, seed) for seed in range(9)}
    assert len(shuffled) > 2
    assert {tuple(sorted(one.split(". "))) for one in shuffled} - {tuple(sorted(TWO.split(". ")))}
    assert shuffled_sentences(TWO, 4) == shuffled_sentences(TWO, 4)


def test_marks_are_read_while_they_are_written(captioned):
    keys = captioned.read_table("captions", "00000", "other")["key"].to_pylist()
    judged = Judged(keys[0], "short", "other", 0)
    set_mark(captioned, "00000", judged, "good", who="ada")

    def write() -> None:
        for turn in range(40):
            set_mark(captioned, "00000", judged, "edited", f"{turn} " * 50 * (1 + turn % 3))

    opened = find(captioned.directory)
    build_app(opened, "a token")
    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        found = caption_rows(
            opened.cursor(), captioned, dict.fromkeys(keys, "00000"), "human-marks"
        )
        assert len(found[keys[0]]) == 4
    thread.join()
    # What asks all captions at once reads people's whole as well.
    for asked in ("mark=edited", "source=human-ada", "source=human-marks&text=39&status=ok"):
        assert "human-" not in caption_keys(opened, asked)
        order = Order(captions=asked)
        assert make_order(opened, opened.tables, order) == 1
    (told,) = caption_sets(opened, "human-ada")
    assert (told["kind"], told["rows"], told["gates"]) == ("human", 1, {"good": 1})
    opened.close()


def test_groups_of_copies_say_what_was_kept_and_why(page, viewed):
    page.go("#/copies?method=near")
    page.until("document.querySelectorAll('.group').length > 2")
    page.until("[...document.querySelectorAll('.group img')].some((one) => one.naturalWidth)")
    assert page.fits()
    found = page.server.get("/api/copies", method="near")
    sizes = [group["size"] for group in found["groups"]]
    assert sizes == sorted(sizes, reverse=True)
    scores = {
        row["key"]: row
        for shard in viewed.shards()
        for row in viewed.read_table("scores", shard).to_pylist()
    }
    for group in found["groups"]:
        kept, *others = group["members"]
        assert kept["key"] == group["kept"]
        assert kept["values"][1] == scores[kept["key"]]["clip_similarity"]
        for one in others:
            if one["decided_by"] == 0:  # a generated group keeps whom it likes
                better = one["values"][0] < kept["values"][0]
                told = "has more pixels" if better else "changed since the search"
                assert told in (one["why"] or group["why"])
    assert "The kept one" in page.texts(".group h3")[0]
    assert page.browser.complaints == []
    page.click(".member a")
    page.until("location.hash.startsWith('#/sample/') && document.querySelector('.way')")
