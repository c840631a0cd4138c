"""The page "Search": by text, like a stored picture, by a file that is dropped."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from report_browser import Browser
from view_page import TOKEN, Page, Server, served

from curate.base.files import read_record, write_json
from curate.scoring.settings import ScoreSettings
from curate.scoring.stage import ScoreStage
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from tests.curate.tiny import tiny_clip

SHOWN = "document.querySelectorAll('.shot img').length > 4"


@pytest.fixture(scope="module")
def searched(viewed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The generated dataset with embeddings of a tiny CLIP."""
    folder = tmp_path_factory.mktemp("searched")
    skip = shutil.ignore_patterns("view", "embeddings")
    dataset = Dataset(shutil.copytree(viewed.directory, folder / "own", ignore=skip))
    config, weights = tiny_clip(folder / "clip")
    stage = ScoreStage(ScoreSettings(clip_model=str(config), clip_pretrained=str(weights)))
    for shard in dataset.shards():
        stage.run(dataset, shard)
    write_json(dataset.directory / "scores.json", {"settings": stage.settings.resolved()})
    with served(dataset.directory) as server:
        yield server


def picture(server: Server) -> tuple[str, bytes]:
    """Key and file of a stored picture."""
    assert server.opened.dataset is not None
    key, raw, _ = next(iter(iter_shard(server.opened.dataset, "00001")))
    return key, raw


def test_pictures_are_found_by_text_and_then_like_one_and_by_a_dropped_file(
    browser: Browser, searched: Server
) -> None:
    page = Page(browser, searched)
    page.go("#/search")
    page.choose("#text", "a <b>red</b> house")
    page.click("form button")
    page.until(SHOWN)
    assert page.value("location.hash").startswith("#/search?text=a+%3Cb%3Ered")
    values = [float(text) for text in page.texts(".told:nth-child(2)")]
    assert values == sorted(values, reverse=True)
    page.click(".like")
    page.until(f"location.hash.includes('like=') && {SHOWN}")
    assert page.texts(".asked") == ["Like this picture"]
    key, raw = picture(searched)
    encoded = base64.b64encode(raw).decode()
    page.value(
        "(async () => { const files = new DataTransfer();"
        f"const raw = await (await fetch('/picture/{key}')).blob();"
        "files.items.add(new File([raw], '<i>mine</i>.jpg'));"
        "document.querySelector('.page').dispatchEvent("
        "new DragEvent('drop', {dataTransfer: files, bubbles: true})); })()"
    )
    page.until("document.querySelector('.asked')?.innerText === 'Like <i>mine</i>.jpg'")
    page.until(f"document.querySelector('.shot a')?.href.endsWith('{key}')")
    assert page.browser.complaints == []
    found = searched.post("/api/search", {"picture": encoded}).json()["rows"]
    assert found[0]["key"] == key
    assert found[0]["values"]["similarity"] > 0.999
    good = searched.get("/api/search", like=key, selection="good", count=5)
    assert len(good["rows"]) == 5
    assert good["among"] < 600


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"picture": base64.b64encode(b"<html>").decode()}, "not_an_image"),
        ({"picture": "no base64!"}, "no base64"),
        ({"picture": base64.b64encode(bytes(20_000_001)).decode()}, "more than 20,000,000"),
        ({}, "no base64"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(
    searched: Server, body: dict[str, str], told: str
) -> None:
    while "waiting" in searched.get("/api/search/models", load="1"):
        pass
    answer = searched.post("/api/search", body)
    assert answer.status_code == 400
    assert told in answer.json()["error"]


def test_a_picture_without_the_token_is_refused(searched: Server) -> None:
    answer = httpx.post(searched.address + "/api/search", json={"picture": ""})
    assert answer.status_code == 403
    assert TOKEN not in answer.text


def test_a_model_that_cannot_be_had_is_told_and_pictures_are_still_found(
    browser: Browser, viewed: Dataset, tmp_path: Path
) -> None:
    skip = shutil.ignore_patterns("view", "search")
    own = Dataset(shutil.copytree(viewed.directory, tmp_path / "own", ignore=skip))
    record = read_record(own.record_path)
    record["settings"] = {"clip_model": "local-dir:/gone", "clip_pretrained": None}
    write_json(own.record_path, record)
    with served(own.directory) as server:
        page = Page(browser, server)
        page.go("#/search?text=anything")
        page.until("document.querySelector('.notice')")
        assert "/gone, cannot be had" in page.texts(".notice")[0]
        key, _ = picture(server)
        page.go(f"#/search?like={key}")
        page.until(SHOWN)
