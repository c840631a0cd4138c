"""Derived sets in a dataset: rows with their provenance, resumed, made again, read as any kind."""

from __future__ import annotations

import json
import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from curate.base.errors import ConfigError, StageError
from curate.store.captions import accepted_captions
from curate.store.contract import CAPTIONS, CAPTIONS_VOLATILE, SAMPLES, sample_key
from curate.store.dataset import Dataset
from curate.store.holes import find_holes, repairing
from pipelines.cli import cli
from recaption.judging.caption_sets import find_sets
from recaption.judging.counts import count_set
from recaption.transforms import derive as module
from recaption.transforms.derivation import Derivation
from recaption.transforms.derive import derive

SCENE = "a {} ring in the top-left, a large bar in the center, on a plain white background"
COLOURS = ("red", "green", "blue", "pink")
WRONG = Derivation(of="descriptive", rule="wrong_attributes", dose=0.4)
SHUFFLED = Derivation(of="descriptive", rule="shuffle")


def caption(key: str, kind: str, text: str | None, index: int = 0) -> dict[str, object]:
    status, reason = ("ok", None) if text else ("rejected", "loop")
    return dict.fromkeys(CAPTIONS.names) | {
        "key": key,
        "kind": kind,
        "text": text,
        "sample_index": index,
        "status": status,
        "reason": reason,
        "flags": [],
        "engine": "http",
    }


def write_shard(dataset: Dataset, shard: str, texts: list[str | None]) -> None:
    keys = [
        sample_key(f"http://pictures.test/{shard}/{row}.jpg", None) for row in range(len(texts))
    ]
    rows = [
        {"key": key, "shard": shard, "row": row, "status": "stored"} for row, key in enumerate(keys)
    ]
    dataset.write_table("samples", pa.Table.from_pylist(rows, SAMPLES), shard)
    captions = [caption(key, "descriptive", text) for key, text in zip(keys, texts, strict=True)]
    captions += [caption(key, "short", f"a ring {row}") for row, key in enumerate(keys)]
    dataset.write_table("captions", pa.Table.from_pylist(captions, CAPTIONS), shard, "vlm-1")


def texts_of(shard: int, count: int = 12) -> list[str | None]:
    texts = [SCENE.format(COLOURS[(row + shard) % 4]) for row in range(count)]
    return [f"{text}, a small cross {shard}{row}" for row, text in enumerate(texts)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset.create(tmp_path / "set", {"list": "test"}, {})
    for shard in range(3):
        write_shard(made, f"{shard:05d}", [*texts_of(shard), None])
    return made


def stamps(dataset: Dataset, source: str) -> dict[str, int]:
    return {p.stem: p.stat().st_mtime_ns for p in dataset.table_files("captions", source)}


def steady(dataset: Dataset, source: str) -> list[dict[str, object]]:
    tables = [dataset.read_table("captions", s, source) for s in ("00000", "00001", "00002")]
    return pa.concat_tables(tables).drop_columns(list(CAPTIONS_VOLATILE)).to_pylist()


def test_rows_say_of_whom_by_which_rule_and_what_failed(dataset: Dataset):
    found = derive(dataset, "wrong", WRONG)
    assert found.source.startswith("derived-")
    assert found.counts == {"ok": 36, "failed": 3}
    assert found.reasons == {"no_source_caption": 3}
    rows = steady(dataset, found.source)
    assert {row["kind"] for row in rows} == {"wrong"}
    assert {(row["engine"], row["model"], row["prompt_id"]) for row in rows} == {
        ("derived", "vlm-1", "wrong_attributes")
    }
    sampling = {"of": "descriptive", "rule": "wrong_attributes", "dose": 0.4}
    assert json.loads(str(rows[0]["sampling"])) == sampling
    sources = accepted_captions(dataset, ["descriptive"]).to_pylist()
    before = {row["key"]: row["text"] for row in sources}
    for row in rows:
        if row["status"] == "ok":
            assert row["raw_text"] == before[row["key"]]
            assert row["flags"] == (["unchanged"] if row["text"] == row["raw_text"] else [])
            assert row["words"] == len(str(row["text"]).split()) - str(row["text"]).count(" , ")
        else:
            assert (row["reason"], row["detail"]) == ("no_source_caption", "loop")
    assert found.changed == sum(
        a != b
        for row in rows
        if row["status"] == "ok"
        for a, b in zip(str(row["text"]).split(), str(row["raw_text"]).split(), strict=True)
    )


def test_readers_see_a_derived_set_as_any_other(dataset: Dataset):
    found = derive(dataset, "lengths", Derivation(of="descriptive", rule="random_length", cuts=3))
    table = accepted_captions(dataset, ["lengths"])
    assert table.num_rows == 3 * 36
    assert set(table.column("sample_index").to_pylist()) == {0, 1, 2}
    (one,) = [s for s in find_sets(dataset) if s.kind == "lengths"]
    assert count_set(dataset, one).accepted == 3 * 36
    # A set may be derived from a derived one, and its own source knows it.
    derive(dataset, "shuffled_lengths", Derivation(of="lengths", rule="shuffle"))
    assert accepted_captions(dataset, ["shuffled_lengths"]).num_rows == 3 * 36
    dataset.table_path("captions", "00001", found.source).unlink()
    (hole,) = [hole for hole in find_holes(dataset) if found.source in hole.table]
    assert repairing(dataset, hole).startswith("caplab derive")


@pytest.mark.parametrize("derivation", [WRONG, SHUFFLED, Derivation(of="short", rule="tags")])
def test_a_second_call_writes_nothing_and_a_lost_shard_comes_back_as_it_was(
    dataset: Dataset, derivation: Derivation
):
    first = derive(dataset, "set", derivation)
    rows, times = steady(dataset, first.source), stamps(dataset, first.source)
    again = derive(dataset, "set", derivation)
    assert (again.written, again.kept, again.counts) == (0, 3, first.counts)
    assert (again.changed, again.changeable) == (first.changed, first.changeable)
    assert stamps(dataset, first.source) == times
    dataset.table_path("captions", "00001", first.source).unlink()
    once_more = derive(dataset, "set", derivation)
    assert (once_more.written, once_more.stale) == (1, 0)
    assert steady(dataset, first.source) == rows


def test_a_set_whose_captions_have_changed_is_told_stale_and_made_again(
    dataset: Dataset, capsys: pytest.CaptureFixture[str]
):
    dropped = Derivation(of="descriptive", rule="drop_clauses", dose=0.5)
    found = derive(dataset, "set", dropped)
    times = stamps(dataset, found.source)
    write_shard(dataset, "00002", [*texts_of(7), None])
    again = derive(dataset, "set", dropped)
    assert (again.source, again.written, again.stale) == (found.source, 1, 1)
    assert "have changed" in capsys.readouterr().err
    assert "1 was out of date" in again.text()
    now = stamps(dataset, found.source)
    assert [shard for shard in now if now[shard] != times[shard]] == ["00002"]
    # Whoever captions other kinds of the same source changes nothing for this one.
    for shard in ("00000", "00001", "00002"):
        table = dataset.read_table("captions", shard, "vlm-1")
        kept = pa.concat_tables([table, table.slice(0, 1).set_column(1, "kind", pa.array(["x"]))])
        dataset.write_table("captions", kept, shard, "vlm-1")
    assert derive(dataset, "set", dropped).written == 0
    dataset.table_path("captions", "00002", "vlm-1").unlink()
    assert derive(dataset, "set", dropped).counts["ok"] == 24


def test_shuffling_in_blocks_gives_each_block_its_own_texts(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "BLOCK_ROWS", 20)
    found = derive(dataset, "set", SHUFFLED)
    for shard in ("00000", "00001", "00002"):
        texts, before = (
            dataset.read_table("captions", shard, source).to_pylist()
            for source in (found.source, "vlm-1")
        )
        made = sorted(str(row["text"]) for row in texts if row["text"])
        told = [str(r["text"]) for r in before if r["text"] and r["kind"] == "descriptive"]
        assert made == sorted(told)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("set", {"of": "detailed", "rule": "tags"}, "no detailed captions"),
        ("short", {"of": "descriptive", "rule": "tags"}, "is there"),
        ("A set", {"of": "descriptive", "rule": "tags"}, "cannot be a caption kind"),
        ("set", {"of": "short", "rule": "tags", "source": "else"}, "wrote no short"),
        ("set", {"of": "short", "rule": "pad", "like": "long"}, "no long captions"),
    ],
)
def test_what_cannot_be_made_fails_before_any_work(
    dataset: Dataset, name: str, settings: dict[str, str], says: str
):
    with pytest.raises(ConfigError, match=says):
        derive(dataset, name, Derivation(**settings))
    assert dataset.caption_sources() == ["vlm-1"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rule": "drop_clauses"}, "needs a dose"),
        ({"rule": "tags", "dose": 0.1}, "has no dose"),
        ({"rule": "pad"}, "needs `like`"),
        ({"rule": "tags", "like": "alt"}, "matches no length"),
        ({"rule": "tags", "cuts": 3}, "makes no cuts"),
    ],
)
def test_a_rule_takes_only_the_settings_that_it_reads(settings: dict[str, object], says: str):
    with pytest.raises(ConfigError, match=says):
        Derivation(of="descriptive", **settings)


def test_a_derivation_that_was_stored_whole_is_read_again():
    for rule in (WRONG, SHUFFLED):
        assert Derivation(**rule.resolved()) == rule


def test_one_name_is_one_rule(dataset: Dataset):
    derive(dataset, "set", WRONG)
    with pytest.raises(ConfigError, match="derived by another rule"):
        derive(dataset, "set", SHUFFLED)


def test_where_nothing_can_be_derived_the_reasons_are_told_and_kept(dataset: Dataset):
    for shard in ("00000", "00001", "00002"):
        write_shard(dataset, shard, ["two dogs run", None])
    with pytest.raises(StageError, match="no_source_caption 3, unread_clause 3"):
        derive(dataset, "set", Derivation(of="descriptive", rule="json"))
    (source,) = [name for name in dataset.caption_sources() if name != "vlm-1"]
    assert {row["detail"] for row in steady(dataset, source)} == {"loop", "two dogs run"}


def test_the_command_derives_shows_and_explains(dataset: Dataset):
    words = ["derive", str(dataset.directory), "wrong", "--of", "descriptive"]
    words += ["--rule", "wrong_attributes", "--dose", "0.4"]
    shown = CliRunner().invoke(cli, [*words, "--dry-run"], catch_exceptions=False).output
    assert shown.count("\n+ a ") == 5
    assert dataset.caption_sources() == ["vlm-1"]
    told = CliRunner().invoke(cli, words, catch_exceptions=False).output
    assert "ok 36, failed 3, no_source_caption 3" in told
    assert "words or clauses that could be" in told


def derive_and_die(dataset: Dataset) -> None:
    """Is killed in front of the second shard's table."""
    written = Dataset.write_table

    def dying(self: Dataset, table: str, rows: pa.Table, shard: str, source: str) -> Path:
        if shard == "00001":
            os.kill(os.getpid(), signal.SIGKILL)
        return written(self, table, rows, shard, source)

    Dataset.write_table = dying  # type: ignore[assignment,method-assign]
    derive(dataset, "set", SHUFFLED)


def test_a_kill_leaves_whole_shards_and_the_next_call_the_same_set(dataset: Dataset):
    # Forked, so that Python and its packages need not start once more.
    child = get_context("fork").Process(target=derive_and_die, args=(dataset,))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    (source,) = [name for name in dataset.caption_sources() if name != "vlm-1"]
    before = stamps(dataset, source)
    assert list(before) == ["00000"]
    found = derive(dataset, "set", SHUFFLED)
    assert (found.source, found.written, found.kept) == (source, 2, 1)
    texts = [row["text"] for row in steady(dataset, source) if row["text"]]
    assert sorted(texts) == sorted(t for s in range(3) for t in texts_of(s) if t)
