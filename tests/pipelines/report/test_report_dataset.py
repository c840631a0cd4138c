"""The report of a dataset: exact counts, whatever is missing, and every selection."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from report_browser import Browser, chromium

from curate.base.errors import DatasetError
from curate.selection.select import select
from curate.selection.settings import SelectSettings
from curate.store.contract import DUPLICATE_PAIRS, DUPLICATES, SAMPLES
from curate.store.dataset import Dataset
from pipelines.bench.common.generate_dataset import Shape, generate
from pipelines.commands.report import report as write
from pipelines.report.build import write_report
from pipelines.report.data import Inputs, find_inputs, registered_domain
from pipelines.report.kept_copy import kept_copy
from pipelines.report.pictures import ShardPictures
from pipelines.report.sections import (
    accounting,
    correlations,
    domains,
    duplicates,
    funnel,
    languages,
    road,
    scores,
    tables,
)
from pipelines.report.text import short
from pipelines.report.thresholds import cut_of

SHAPE = Shape(rows=2_400, picture_shards=2, embedding_width=8)
SCRIPT = "<script>window.stolen = 1</script>"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """2,400 generated rows with two presets selected and one selection of both."""
    dataset = generate(tmp_path_factory.mktemp("generated") / "d", SHAPE)
    select(dataset, SelectSettings(preset="sd2-base"))
    select(dataset, SelectSettings(preset="datacomp-clip"))
    both = "in_selection('sd2-base') and in_selection('datacomp-clip')"
    select(dataset, SelectSettings(name="both", where=both))
    return dataset


@pytest.fixture(scope="module")
def inputs(dataset: Dataset) -> Inputs:
    found = find_inputs(dataset.directory)
    found.followed = "sd2-base"
    return found


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Dataset:
    """One to take things away from."""
    return Dataset(shutil.copytree(dataset.directory, tmp_path / "copy"))


@pytest.fixture(scope="module")
def browser():
    executable = chromium()
    if executable is None:
        pytest.skip("Chromium is not installed")
    with Browser(executable) as opened:
        yield opened


def column(dataset: Dataset, table: str, name: str) -> pa.ChunkedArray:
    parts = [dataset.read_table(table, shard).column(name) for shard in dataset.shards()]
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks])


def count(values: pa.ChunkedArray) -> dict[object, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}


def test_rows_and_reasons_are_those_of_the_tables(dataset: Dataset, inputs: Inputs) -> None:
    facts = accounting.compute(inputs)
    assert facts is not None
    status = count(column(dataset, "samples", "status"))
    assert (facts.rows, facts.stored, facts.failed) == (2400, status["stored"], status["failed"])
    reasons = count(column(dataset, "samples", "reason"))
    assert {one.reason: one.rows for one in facts.reasons} == {
        reason: rows for reason, rows in reasons.items() if reason is not None
    }
    policy = {"disallowed_by_header", "too_small", "aspect"}
    told = {kind.title.split(":")[0]: kind.rows for kind in facts.kinds}
    assert told["Policy"] == sum(reasons[reason] for reason in policy)
    assert sum(told.values()) == facts.failed


def test_errors_and_policy_of_a_host_are_counted_apart(dataset: Dataset, inputs: Inputs) -> None:
    facts = accounting.compute(inputs)
    assert facts is not None
    worst = facts.hosts[0]
    rows = [
        row
        for shard in dataset.shards()
        for row in dataset.read_table("samples", shard).to_pylist()
        if f"//{worst.host}/" in row["url"]
    ]
    policy = {"disallowed_by_header", "too_small", "aspect"}
    assert worst.rows == len(rows)
    assert worst.refused == sum(row["reason"] in policy for row in rows)
    assert worst.errors == sum(row["status"] == "failed" for row in rows) - worst.refused


def test_every_selection_has_its_funnel_and_the_followed_one_comes_first(inputs: Inputs) -> None:
    facts = funnel.compute(inputs)
    assert facts is not None
    assert [one.name for one in facts.shown] == ["sd2-base", "both", "datacomp-clip"]
    for one in facts.shown:
        assert one.rules[-1].left == one.selected
        assert one.current
    clip = facts.shown[-1]
    assert clip.source is not None
    assert clip.came_to[0][1] == "30%"


def test_thresholds_of_all_selections_stand_in_the_histograms(inputs: Inputs) -> None:
    facts = scores.compute(inputs)
    assert facts is not None
    cuts = {score.name: [cut.selections for cut in score.cuts] for score in facts.main}
    assert cuts["nsfw"] == [("sd2-base",)]
    assert cuts["original_width"] == [("sd2-base",)]
    assert cuts["clip_similarity"] == [("datacomp-clip",)]
    (similarity,) = [score for score in facts.main if score.name == "clip_similarity"]
    assert similarity.thresholds[0].text.endswith("(top 30%)")
    for score in facts.main + facts.others:
        assert score.bins is not None
        assert sum(map(sum, score.bins.counts.values())) == score.count


def test_samples_beside_a_threshold_are_the_nearest_that_have_a_picture(
    dataset: Dataset, inputs: Inputs
) -> None:
    facts = scores.compute(inputs)
    assert facts is not None
    (unsafe,) = [score for score in facts.main if score.name == "nsfw"]
    shown = [one.score for one in unsafe.edges[0].shown]
    known = [
        value
        for shard in ("00000", "00001")
        for value in dataset.read_table("scores", shard).column("nsfw").to_pylist()
        if value is not None
    ]
    below = sorted(value for value in known if value < 0.1)[-4:]
    above = sorted(value for value in known if value >= 0.1)[:4]
    assert shown == below + above
    assert [one.kept for one in unsafe.edges[0].shown] == [True] * 4 + [False] * 4


def test_languages_are_counted_with_what_the_selection_keeps(
    dataset: Dataset, inputs: Inputs
) -> None:
    facts = languages.compute(inputs)
    assert facts is not None
    expected = count(column(dataset, "scores", "text_language"))
    assert {one.name: one.samples for one in facts.shown} == expected
    kept = len(dataset.selection_keys("sd2-base"))
    assert sum(one.selected for one in facts.shown) == kept


def test_domains_add_up_to_the_rows(inputs: Inputs) -> None:
    facts = domains.compute(inputs)
    assert facts is not None
    assert facts.rows == 2400
    largest = facts.tables[0].domains
    assert largest == sorted(largest, key=lambda one: (-one.rows, one.name))
    assert facts.in_ten == sum(one.rows for one in largest[:10])


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("img2.shop.co.uk", "shop.co.uk"),
        ("example.org", "example.org"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("localhost", "localhost"),
        ("(no host)", "(no host)"),
    ],
)
def test_a_domain_is_what_somebody_registered(host: str, domain: str) -> None:
    assert registered_domain(host) == domain


def test_correlations_are_pearsons_r(dataset: Dataset, inputs: Inputs) -> None:
    facts = correlations.compute(inputs)
    assert facts is not None
    import numpy as np

    first, second = (
        np.array(column(dataset, "scores", name).to_pylist(), float)
        for name in ("clip_similarity", "clip_similarity_b32")
    )
    both = np.isfinite(first) & np.isfinite(second)
    expected = np.corrcoef(first[both], second[both])[0, 1]
    assert facts.value("clip_similarity", "clip_similarity_b32") == pytest.approx(expected)
    assert facts.value("clip_similarity_b32", "clip_similarity") == pytest.approx(expected)
    assert [correlations.shade(r) for r in (0.9, 0.3, 0.01, -0.6, None)] == [
        *("up4", "up2", "", "down3", ""),
    ]


def test_a_duplicate_tells_by_which_method_and_how_far(dataset: Dataset, inputs: Inputs) -> None:
    facts = duplicates.compute(inputs)
    assert facts is not None
    pairs = dataset.read_table("duplicate_pairs").to_pylist()
    for level in facts:
        assert level.pairs == sum(pair["method"] == level.name for pair in pairs)
        for group in level.shown:
            assert group.members[0].kept
            assert level.name in [one.method for one in group.members[1:]]
    by_method = {(pair["method"], pair["distance"]) for pair in pairs}
    embedding = [one for level in facts for group in level.shown for one in group.members]
    assert {(one.method, one.distance) for one in embedding if not one.kept} <= by_method


def test_tables_tell_rows_and_who_made_the_similarities(inputs: Inputs) -> None:
    facts = tables.compute(inputs)
    assert facts is not None
    rows = {table.name: table.rows for table in facts.present}
    assert rows["samples"] == 2400
    assert rows["scores"] == rows["embeddings"]
    assert "captions/generated" in rows
    assert "fingerprints" in facts.absent
    assert ("clip_similarity", "ViT-L-14-quickgelu/openai") in facts.models


def test_a_browser_finds_no_error_and_nothing_too_wide(
    dataset: Dataset, tmp_path: Path, browser: Browser
) -> None:
    target = write_report(tmp_path / "report.html", dataset.directory)
    for width in (390, 1280):
        browser.open(target, width)
        browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.value("document.documentElement.scrollWidth") == width
        assert browser.complaints == []
    assert browser.value("[...document.images].every(i => i.alt.length > 0 && i.complete)")
    overlapping = browser.value(
        """[...document.querySelectorAll('svg.chart')].flatMap(svg => {
          const boxes = [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect());
          return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
            a.left < b.right - 1 && b.left < a.right - 1 &&
            a.top < b.bottom - 3 && b.top < a.bottom - 3).map(() => svg.ariaLabel));
        })"""
    )
    assert overlapping == []


def test_labels_of_many_thresholds_do_not_cover_one_another(
    copy: Dataset, tmp_path: Path, browser: Browser
) -> None:
    for number in range(8):
        where = f"aesthetic >= {5 + number / 20} and clip_similarity < {0.2 + number / 500}"
        select(copy, SelectSettings(name=f"s{number}", where=where))
    browser.open(write_report(tmp_path / "report.html", copy.directory), 390)
    covered = browser.value(
        """[...document.querySelectorAll('svg.chart')].map(svg => {
          const boxes = [...svg.querySelectorAll('.cut-label')].map(t => t.getBoundingClientRect());
          return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>
            a.left < b.right && b.left < a.right && a.top < b.bottom - 3 && b.top < a.bottom - 3)
          ).length;
        })"""
    )
    assert sum(covered) == 0


@pytest.mark.parametrize(
    "missing",
    ["embeddings", "duplicates", "duplicate_pairs", "captions", "scores", "selections", "shards"],
)
def test_whatever_is_missing_the_rest_is_reported(
    copy: Dataset, tmp_path: Path, missing: str
) -> None:
    folder = copy.directory / "tables" / missing
    shutil.rmtree(folder if folder.exists() else copy.directory / missing)
    html = write_report(tmp_path / "report.html", copy.directory).read_text(encoding="utf-8")
    assert "2,400" in html
    if missing == "shards":
        assert "<img" not in html


def test_a_selection_of_older_tables_says_so(copy: Dataset, tmp_path: Path) -> None:
    table = copy.read_table("scores", "00000")
    copy.write_table("scores", table.slice(0, table.num_rows - 1), "00000")
    html = write_report(tmp_path / "report.html", copy.directory).read_text(encoding="utf-8")
    assert "The tables have changed since this selection was made" in html


def test_a_selection_whose_columns_and_selections_are_gone_is_still_shown(
    copy: Dataset, tmp_path: Path
) -> None:
    for suffix in (".parquet", ".json"):
        copy.selection_path("datacomp-clip").with_suffix(suffix).unlink()
    for shard in copy.shards():
        table = copy.read_table("scores", shard)
        copy.write_table("scores", table.drop_columns(["nsfw"]), shard)
    for name in ("both", "sd2-base"):
        target = write_report(tmp_path / "report.html", copy.directory, selection=name)
        assert f"The selection “{name}” keeps" in target.read_text(encoding="utf-8")


def test_the_user_chooses_the_selection_to_follow(copy: Dataset) -> None:
    write(copy.directory, "datacomp-clip")
    html = (copy.directory / "report.html").read_text(encoding="utf-8")
    assert "The selection “datacomp-clip” keeps" in html
    with pytest.raises(DatasetError, match=r"no selection 'best' \(selections: both, "):
        write(copy.directory, "best")


def test_the_selection_made_last_is_followed_and_all_are_named(copy: Dataset) -> None:
    select(copy, SelectSettings(name="afterwards", where="original_width >= 300"))
    write(copy.directory)
    html = (copy.directory / "report.html").read_text(encoding="utf-8")
    assert "The selection “afterwards” keeps" in html
    assert (
        "It is followed here, of 4 selections: afterwards, both, datacomp-clip, sd2-base." in html
    )


def test_a_sample_dropped_as_a_copy_says_of_which_kept_one(copy: Dataset) -> None:
    select(copy, SelectSettings(name="best"))
    inputs = find_inputs(copy.directory)
    dropped = inputs.rows(
        "SELECT key FROM samples WHERE status = 'stored' "
        "AND key NOT IN (SELECT key FROM selected) ORDER BY key"
    )
    pairs = {
        frozenset((row["key_a"], row["key_b"])): row["method"]
        for row in inputs.rows("SELECT * FROM duplicate_pairs")
    }
    kept, direct = set(copy.selection_keys("best")), 0
    assert len(dropped) > 20
    for row in dropped[:20]:
        found = kept_copy(inputs, row["key"])
        assert found is not None
        assert found.key in kept
        # Of equals the search looks at one for all, so the pair may be that of an equal.
        pair = pairs.get(frozenset((row["key"], found.key)))
        assert pair in (found.method, None)
        direct += pair is not None
    assert direct > 5
    facts = road.compute(inputs)
    assert facts is not None
    assert facts.dropped is not None
    assert facts.dropped.copy_of is not None
    html = write_report(copy.directory / "r.html", copy.directory).read_text(encoding="utf-8")
    assert f"of row {facts.dropped.copy_of.row:,}, which was kept" in html


def test_hostile_texts_of_every_table_stay_texts(copy: Dataset, tmp_path: Path) -> None:
    table = copy.read_table("samples", "00000")
    names = {"url": f"http://{SCRIPT}.example/", "reason": SCRIPT, "detail": SCRIPT}
    for name, text in {**names, "alt_text": SCRIPT}.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array([text] * table.num_rows))
    copy.write_table("samples", table, "00000")
    rows = copy.read_table("scores", "00000")
    place = rows.column_names.index("text_language")
    rows = rows.set_column(place, "text_language", pa.array([SCRIPT] * rows.num_rows))
    rows = rows.append_column(SCRIPT, pa.array([1.0] * rows.num_rows))
    copy.write_table("scores", rows, "00000")
    html = write_report(tmp_path / "report.html", copy.directory).read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_a_dataset_whose_rows_all_failed_has_no_division_by_zero(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "d", {"input": "dead.csv"}, {})
    row = dict.fromkeys(SAMPLES.names) | {"key": "0" * 32, "shard": "00000", "row": 0}
    row |= {"url": "http://a.co.uk/1.jpg", "status": "failed", "reason": "dns"}
    dataset.write_table("samples", pa.Table.from_pylist([row], SAMPLES), "00000")
    dataset.write_table("scores", pa.table({"key": pa.array([], pa.string())}), "00000")
    dataset.write_table("duplicates", pa.Table.from_pylist([], DUPLICATES))
    dataset.write_table("duplicate_pairs", pa.Table.from_pylist([], DUPLICATE_PAIRS))
    select(dataset, SelectSettings())
    html = write_report(tmp_path / "report.html", dataset.directory).read_text(encoding="utf-8")
    assert "a.co.uk" in html
    assert "0 of 0 samples" in html


def test_pictures_of_plain_and_of_odd_tars_are_the_same(dataset: Dataset, tmp_path: Path) -> None:
    import tarfile

    path = dataset.shard_path("00000")
    with tarfile.open(path) as archive, tarfile.open(tmp_path / "odd.tar", "w") as odd:
        members = [member for member in archive if member.isfile()]
        for member in members:
            member.pax_headers = {"comment": "an extended header"}
            odd.addfile(member, archive.extractfile(member))
    keys = [member.name.rpartition(".")[0] for member in members]
    plain = ShardPictures().read(dict.fromkeys(keys, path))
    assert len(plain) == len(keys) > 300
    assert ShardPictures().read(dict.fromkeys(keys, tmp_path / "odd.tar")) == plain


def test_a_rule_that_compares_one_column_with_one_number_is_a_cut() -> None:
    cut = cut_of("top_fraction(a, 0.3)", "a >= CAST('0.25' AS FLOAT)")
    assert cut is not None
    assert (cut.column, cut.threshold.value, cut.threshold.text) == ("a", 0.25, "≥ 0.25 (top 30%)")
    assert cut_of("a > b", "a > b") is None
    assert cut_of("least(a, b) >= 2", "least(a, b) >= 2") is None


def test_axis_numbers_are_short() -> None:
    assert [short(value) for value in (0, 0.25, 5000, 20_000, 1_500_000, -2e9)] == [
        *("0", "0.25", "5,000", "20k", "1.5M", "−2G"),
    ]
