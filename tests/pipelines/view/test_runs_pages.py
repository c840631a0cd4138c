"""A study and its training runs as somebody looks at them, in a real browser."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from report_browser import Browser
from report_example import make_ablation
from view_page import SCRIPT, Page, Server, served

from curate.base.errors import DatasetError
from pipelines.ablation.pictures import PICTURES, webp_of
from pipelines.view.opened import find

KEPT = "alt-0-short-varied-0"
"""A picture that its run kept and the results do not show; the side is 40 px."""
RUN = "runs/descriptive-0a1b2c3d/seed-1"
GRID = ["a red ring", SCRIPT, "a blue moon", ""]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three arms, two seeds, a prompt of an attacker, a kept picture, and a run with two grids."""
    out = make_ablation(tmp_path_factory.mktemp("viewed-runs") / "study", prompts=12)
    path = out / "results" / "images.parquet"
    images = pq.read_table(path)
    hostile = [
        SCRIPT if place == "short-varied-0" else text
        for place, text in zip(
            *(images[n].to_pylist() for n in ("prompt_id", "prompt")), strict=True
        )
    ]
    column = images.column_names.index("prompt")
    pq.write_table(images.set_column(column, "prompt", pa.array(hostile)), path)
    kept = out / "runs" / "alt-0a1b2c3d" / "seed-0" / "pictures" / "part.parquet"
    kept.parent.mkdir()
    webp = webp_of(np.full((40, 40, 3), 90, np.uint8))
    row = {"picture_id": KEPT, "prompt_id": "short-varied-0", "noise": 0, "webp": webp}
    pq.write_table(pa.Table.from_pylist([row], PICTURES), kept)
    for step, grey in ((350, 60), (700, 200)):
        Image.new("RGB", (204, 204), (grey,) * 3).save(out / RUN / "grids" / f"step-{step:06d}.png")
    (out / RUN / "grids" / "prompts.json").write_text(json.dumps(GRID))
    names = ("kind", "dropped", "draws")
    drawn = [("alt", False, 20), ("descriptive", False, 70), ("descriptive", True, 10)]
    receipt = [dict(zip(names, row, strict=True)) for row in drawn]
    pq.write_table(pa.Table.from_pylist(receipt), out / RUN / "receipt.parquet")
    return out


@pytest.fixture(scope="module")
def study_server(study: Path) -> Iterator[Server]:
    with served(study) as server:
        yield server


@pytest.fixture
def study_page(browser: Browser, study_server: Server) -> Page:
    return Page(browser, study_server)


ROWS = "document.querySelectorAll('.by-prompt tbody tr').length"
HEADS = "[...document.querySelectorAll('.by-prompt thead th')].map((one) => one.innerText)"
DIFFERENCES = """[...document.querySelectorAll('.difference')]
    .map((one) => parseFloat(one.innerText.replace('−', '-')))"""


def test_arms_stand_beside_one_another_by_prompt(study_page: Page) -> None:
    page = study_page
    page.go("#/study")
    page.until(f"{ROWS} === 20")
    assert any("descriptive" in text for text in page.texts(".verdicts li"))
    assert [text.split()[-1] for text in page.texts(".arms-list tbody .arm")] == [
        "alt",
        "short",
        "descriptive",
    ]
    page.choose("#of-wording", "captioner")
    page.until(f"{ROWS} === 12 && document.querySelector('.by-prompt .meant img')?.naturalWidth")
    page.click("#by-difference")
    page.until(f"{DIFFERENCES}.length === 12")
    down = page.value(DIFFERENCES)
    assert down == sorted(down, reverse=True)
    page.click("#up")
    page.until(f"{DIFFERENCES}[0] === {down[-1]}")
    assert page.value(DIFFERENCES) == sorted(down)
    page.browser.press("s")
    page.until(f"{HEADS}.join().includes('seed 1')")
    there = page.value("location.hash")
    page.go(there)  # the address holds all of it
    page.until(f"{DIFFERENCES}.length === 12 && {HEADS}.join().includes('seed 1')")
    page.click(".by-prompt .asked")
    page.until("document.querySelector('.one-prompt').open")
    assert "malformed" in page.value("document.querySelector('.one-prompt').innerText")
    assert page.browser.complaints == []


def test_what_an_attacker_wrote_stays_text_and_what_is_missing_says_so(study_page: Page) -> None:
    page = study_page
    page.go("#/study?form=short&text=SCRIPT", width=390, dark=True)
    page.until(f"{ROWS} === 1 && document.querySelector('td[data-arm=alt] img')?.naturalWidth")
    assert page.texts(".by-prompt .asked") == [SCRIPT]
    assert page.value("document.querySelector('td[data-arm=alt] img').naturalWidth") == 40
    assert page.texts("td[data-arm=short] .absent") == ["no picture: its run kept no picture"]
    assert page.fits()
    page.go("#/run?arm=descriptive&seed=1", width=390)
    page.until("document.querySelectorAll('.tiles img').length === 4")
    assert page.texts(".tiles .prompt") == [*GRID[:3], "no caption"]
    first = page.value("document.querySelector('.tiles img').src")
    page.browser.press("[")
    page.until(f"document.querySelector('.tiles img').src !== {json.dumps(first)}")
    assert page.texts("output.step") == ["step 350"]
    assert len(page.value("document.querySelector('.plots').children")) >= 3
    told = page.value("document.querySelector('main').innerText")
    assert "80.00%" in told
    assert "100 draws, of which 10 were emptied" in told
    assert page.fits()
    assert page.value("window.stolen") is None
    assert page.browser.complaints == []


def test_a_run_is_opened_by_itself_and_by_its_study_alone(
    study: Path, study_server: Server, tmp_path: Path
) -> None:
    for place, status in (
        ("/api/run?arm=nobody&seed=0", 409),
        ("/run/grid/350?arm=descriptive&seed=1", 200),
        ("/run/grid/351?arm=descriptive&seed=1", 404),
        ("/study/kept/0/..%2F..%2Frun.json", 404),
        ("/study/kept/0/nothing", 409),
        ("/study/kept/99/nothing", 409),
        ("/api/study/prompts?metric=colour%22", 400),
        ("/api/study/prompts?sort=difference&a=alt&b=nobody", 400),
    ):
        assert httpx.get(study_server.address + place).status_code == status, place
    # Browsers keep a picture by its address, and another study may be served under the same one.
    addresses = []
    for made in (1_000, 2_000):
        os.utime(study / "results" / "images.parquet", (made, made))
        addresses.append(study_server.get("/api/study/prompts", count=1)["rows"][0]["meant"])
    assert len({address.split("?")[0] for address in addresses}) == 1
    assert addresses[0] != addresses[1]
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(DatasetError, match="has no results yet; the same `caplab ablate` goes on"):
        find(tmp_path)
    with served(study / RUN) as alone:
        assert alone.get("/api/about")["pages"] == ["run"]
        found = alone.get("/api/run")
        assert found["finished"]
        assert [grid["step"] for grid in found["grids"]["steps"]] == [350, 700]
        assert httpx.get(alone.address + "/api/study").status_code == 404
