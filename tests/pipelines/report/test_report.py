"""The report as a reader sees it: opened in a real browser."""

from __future__ import annotations

import shutil
import webbrowser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from report_browser import Browser, chromium
from report_example import make_ablation, make_dataset, make_demo

from curate.base.errors import DatasetError
from curate.base.files import read_json, write_json
from curate.store.contract import SAMPLES
from curate.store.dataset import Dataset
from pipelines.commands.report import command
from pipelines.report.build import write_report

# Texts that become markup, or leave an attribute, where somebody forgot to escape them.
SCRIPT = "<script>window.stolen = 1</script>"
IMAGE = '"><img src=x onerror="window.stolen = 2"><b class=planted>'
STYLE = "</style><svg onload=window.stolen=3><![CDATA[ --> ]]>"
TEMPLATE = "{{ 7 * 7 }} {% raw %} &lt;i&gt;"
BACKWARDS = "before \u202etxet\u202c after\u0007"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo(tmp_path_factory.mktemp("demo"), rows=160, prompts=16)


@pytest.fixture(scope="module")
def report(demo: Path) -> Path:
    return write_report(demo / "report.html", demo_dir=demo)


@pytest.fixture(scope="module")
def browser():
    executable = chromium()
    if executable is None:
        pytest.skip("Chromium is not installed")
    with Browser(executable) as opened:
        yield opened


def broken_images(browser: Browser) -> list[str]:
    """Alt texts of pictures that did not load or cannot be decoded."""
    found: list[str] = browser.value(
        "Promise.all([...document.images].map(i => i.decode().then(() => null, () => i.alt)))"
        ".then(all => all.filter(one => one !== null))"
    )
    return found


def foreign(browser: Browser) -> list[str]:
    """Everything that was asked for and is neither the page nor inlined in it."""
    return [url for url in browser.requests if not url.startswith(("data:", "file:"))]


def test_a_browser_finds_no_error_no_request_and_no_broken_picture(
    report: Path, browser: Browser
) -> None:
    browser.open(report)
    assert browser.value("document.images.length") > 60
    assert broken_images(browser) == []
    assert browser.complaints == []
    assert foreign(browser) == []


def test_all_sections_of_a_demo_are_there(report: Path, browser: Browser) -> None:
    browser.open(report)
    names = browser.value("[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert names == [
        *("headline", "effects", "doses", "grids", "ablation", "limits"),
        *("road", "accounting", "domains", "funnel", "scores", "correlations"),
        *("duplicates", "checks", "captions", "caption_sets", "training", "stages", "tables"),
    ]
    links = browser.value("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert links == names


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(report: Path, browser: Browser, width: int) -> None:
    browser.open(report, width)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.value("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(report: Path, browser: Browser, dark: bool) -> None:
    # WCAG 2.2, 1.4.3: contrast of at least 4.5 to 1; legends' marks need 3 to 1 (1.4.11).
    browser.open(report, dark=dark)
    ratios = browser.value(
        """(() => {
          const light = hex => {
            const part = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255)
              .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
            return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
          };
          const style = getComputedStyle(document.documentElement);
          const of = name => light(style.getPropertyValue('--' + name).trim());
          const ratio = (a, b) => (Math.max(of(a), of(b)) + .05) / (Math.min(of(a), of(b)) + .05);
          const marks = [...'0123456789'].map(i => 'a' + i).concat('good', 'bad', 'plain');
          return {
            text: ['ink', 'soft', 'accent', 'good', 'bad'].map(n =>
              Math.min(ratio(n, 'ground'), ratio(n, 'card'))).concat(
                ratio('good', 'good-ground'), ratio('bad', 'bad-ground'), ratio('soft', 'shade')),
            marks: marks.map(n => Math.min(ratio(n, 'ground'), ratio(n, 'card'))),
          };
        })()"""
    )
    assert min(ratios["text"]) >= 4.5
    assert min(ratios["marks"]) >= 3


def test_every_picture_and_chart_says_what_it_shows(report: Path, browser: Browser) -> None:
    browser.open(report)
    assert browser.value("[...document.images].every(i => i.alt.length > 0)")
    assert browser.value(
        "[...document.querySelectorAll('svg[role=img]')].every(s => s.ariaLabel.length > 0)"
    )


def test_planted_markup_appears_as_text_only(tmp_path: Path, demo: Path, browser: Browser) -> None:
    planted = {
        row: {
            "url": f"http://host{row}.example/{IMAGE}{SCRIPT}",
            "alt_text": f"{SCRIPT}{IMAGE}{STYLE}{TEMPLATE}{BACKWARDS}",
            "caption": f"{IMAGE}{SCRIPT}{STYLE}",
            "reason": SCRIPT,
            "detail": IMAGE,
        }
        for row in range(160)
    }
    make_dataset(tmp_path / "dataset", demo / "world", planted=planted)
    run = make_ablation(tmp_path / "ablation", prompts=12)
    images = pq.read_table(run / "results" / "images.parquet")
    prompts = pa.array([SCRIPT + IMAGE] * images.num_rows)
    column = images.column_names.index("prompt")
    pq.write_table(images.set_column(column, "prompt", prompts), run / "results" / "images.parquet")
    record = read_json(run / "run.json")
    record |= {"headline": [SCRIPT + TEMPLATE], "limits": [IMAGE], "settings": {SCRIPT: STYLE}}
    write_json(run / "run.json", record)

    target = write_report(tmp_path / "report.html", tmp_path / "dataset", run)

    before = len(browser.complaints)
    browser.open(target)
    assert browser.value("typeof window.stolen") == "undefined"
    assert browser.value("document.scripts.length") == 0
    assert browser.value("document.querySelectorAll('.planted, [onerror], [onload]').length") == 0
    assert broken_images(browser) == []
    assert browser.complaints[before:] == []
    said = browser.value("document.body.textContent")
    for text in (SCRIPT, IMAGE, STYLE, TEMPLATE):
        assert text in said
    assert "before \u27e8U+202E\u27e9txet\u27e8U+202C\u27e9 after\u2407" in said


def test_the_policy_forbids_scripts_and_foreign_pictures(
    tmp_path: Path, report: Path, browser: Browser
) -> None:
    # Even markup that got through would do nothing.
    attacked = tmp_path / "attacked.html"
    html = report.read_text(encoding="utf-8")
    attack = SCRIPT + '<img src="http://127.0.0.1:9/x.png"><p id="styled" style="color: red">x</p>'
    attacked.write_text(html.replace("</main>", attack + "</main>"), encoding="utf-8")
    before, requests = len(browser.complaints), len(foreign(browser))
    browser.open(attacked)
    assert browser.value("typeof window.stolen") == "undefined"
    assert browser.value("getComputedStyle(document.getElementById('styled')).color") != (
        "rgb(255, 0, 0)"
    )
    assert any("Content Security Policy" in one for one in browser.complaints[before:])
    assert len(foreign(browser)) == requests or all(
        "127.0.0.1:9" in url for url in foreign(browser)[requests:]
    )
    del browser.complaints[before:]


def test_an_empty_dataset_still_gives_a_report(tmp_path: Path, browser: Browser) -> None:
    Dataset.create(tmp_path / "dataset", {"input": "nothing.csv"}, {})
    target = write_report(tmp_path / "report.html", tmp_path / "dataset")
    before = len(browser.complaints)
    browser.open(target, width=390)
    assert browser.complaints[before:] == []
    assert "0 rows in" in browser.value("document.querySelector('.equation').innerText")


@pytest.mark.parametrize("url", ["http://gone.example/a.jpg", "folder/a.jpg"])
def test_a_dataset_whose_rows_all_failed_gives_a_report(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.create(tmp_path / "dataset", {"input": "dead.csv"}, {})
    row = dict.fromkeys(SAMPLES.names) | {"key": "0" * 32, "shard": "00000", "row": 0}
    row |= {"url": url, "status": "failed", "reason": "dns"}
    dataset.write_table("samples", pa.Table.from_pylist([row], SAMPLES), "00000")
    shown: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda page: shown.append(page) or True)
    done = CliRunner().invoke(command, [str(dataset.directory), "--open"])
    page = dataset.directory / "report.html"
    assert (done.exit_code, shown) == (0, [page.as_uri()])
    html = page.read_text()
    assert "Of 1 input row, 0 were stored and 1 failed." in html
    assert "the host name could not be resolved" in html
    # A file of a folder comes from no host.
    assert ("By host" in html, "gone.example" in html, "(no host)" in html) == (
        (True, True, False) if "gone" in url else (False, False, False)
    )


def test_a_stored_picture_that_cannot_be_read_is_named(tmp_path: Path, demo: Path) -> None:
    dataset = Dataset(shutil.copytree(demo / "dataset", tmp_path / "dataset"))
    for shard in dataset.shards():
        content = dataset.shard_path(shard).read_bytes()
        dataset.shard_path(shard).write_bytes(content.replace(b"\xff\xd8\xff", b"\0\0\0"))
    html = write_report(tmp_path / "report.html", dataset.directory).read_text(encoding="utf-8")
    assert "cannot be decoded" in html
    assert "<img" not in html


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, demo: Path, report: Path) -> None:
    again = write_report(tmp_path / "again.html", demo_dir=demo)
    assert again.read_bytes() == report.read_bytes()


def test_the_size_does_not_grow_with_the_dataset(tmp_path: Path, demo: Path) -> None:
    small = write_report(tmp_path / "small.html", demo / "dataset").stat().st_size
    larger = make_demo(tmp_path / "larger", rows=640, seeds=(0,), prompts=12)
    large = write_report(tmp_path / "large.html", larger / "dataset").stat().st_size
    assert large < 1.25 * small


def test_a_report_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="needs a dataset or a run"):
        write_report(tmp_path / "report.html")
    with pytest.raises(DatasetError, match=r"has no run\.json"):
        write_report(tmp_path / "report.html", run_dir=tmp_path)
    assert not (tmp_path / "report.html").exists()
