"""When nothing is accepted any more: what counts, what is said, and what a rerun asks for again."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from curate.base.errors import DatasetError
from curate.store.contract import CAPTIONS
from curate.store.dataset import Dataset
from recaption.captioning.collapse import Acceptance, Tally, collapses, note_collapse
from recaption.captioning.parts import ShardCaptions

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
BAD = ("failed", "http_402", "Insufficient credits")


def rows(*fates: tuple[str, str | None, str | None], minute: int = 0, first: int = 0) -> pa.Table:
    """Captions with these (status, reason, detail), one a key."""
    made = [
        {
            "key": f"{first + n:032x}",
            "kind": "short",
            "sample_index": 0,
            "status": status,
            "reason": reason,
            "detail": detail,
            "created_at": NOON + timedelta(minutes=minute),
        }
        for n, (status, reason, detail) in enumerate(fates)
    ]
    return pa.Table.from_pylist(made, schema=CAPTIONS)


def following(limit: int, *blocks: pa.Table) -> Acceptance:
    acceptance = Acceptance(limit)
    for block in blocks:
        since = block.column("created_at")[0].as_py()
        acceptance.add(Tally.from_json(Tally.of(block, since).to_json()))
    return acceptance


OK = ("ok", None, None)


@pytest.mark.parametrize(
    ("limit", "blocks", "collapsed"),
    [
        (4, [[BAD] * 3], False),
        (4, [[BAD] * 3, [BAD]], True),
        (4, [[BAD] * 3, [OK, BAD], [BAD] * 3], False),
        (4, [[OK] * 99, [BAD] * 2, [("rejected", "loop", None)] * 2], True),
        (0, [[BAD] * 999], False),
        (4, [[("failed", "content_filter", None)] * 99], False),
        (4, [[("failed", "refused", None), ("failed", "broken_picture", None)] * 9], False),
        (4, [[("failed", "missing_picture", None)] * 99, [BAD] * 3], False),
        (4, [[("rejected", "refusal", None)] * 4], True),
    ],
)
def test_a_run_collapses_when_so_many_in_a_row_were_not_accepted_whatever_their_pictures(
    limit: int, blocks: list[list[tuple[str, str | None, str | None]]], collapsed: bool
) -> None:
    assert following(limit, *[rows(*block) for block in blocks]).collapsed is collapsed


def test_the_sentence_names_counts_reasons_the_servers_words_and_what_to_do() -> None:
    block = rows(BAD, BAD, ("rejected", "loop", None))
    assert following(3, block).sentence("caption") == (
        "Stopped, for none of the last 3 captions was accepted (2 failed: http_402, 1 rejected: "
        "loop; the last error: Insufficient credits). What was written is kept, and the same "
        "command asks for these again; stop_after_unaccepted sets when to stop."
    )
    assert "None of 3 captions asked for" in following(9, block).sentence("caption")


@pytest.mark.parametrize(
    ("blocks", "fruitless"), [([[BAD]], True), ([[OK], [BAD]], False), ([], False)]
)
def test_a_run_without_one_accepted_caption_bore_no_fruit(
    blocks: list[list[tuple[str, str | None, str | None]]], fruitless: bool
) -> None:
    assert following(0, *[rows(*block) for block in blocks]).fruitless is fruitless


def test_a_collapse_may_have_begun_in_the_last_block_with_an_accepted_caption() -> None:
    mixed = rows(OK, BAD, minute=1)
    acceptance = following(2, rows(OK, minute=0), mixed, rows(BAD, BAD, minute=2))
    assert acceptance.since == NOON + timedelta(minutes=1)


def test_what_a_collapse_left_counts_as_missing_until_it_was_asked_again(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data", {}, {})
    captions = ShardCaptions(dataset, "me", "00000")
    captions.add_part(rows(OK, BAD))
    captions.finish()
    captions.add_part(rows(OK, BAD, minute=5, first=2))
    assert len(captions.written()) == 4
    note_collapse(dataset, "me", NOON + timedelta(minutes=5))

    rerun = ShardCaptions(dataset, "me", "00000")
    keys = {key for key, _, _ in rerun.written()}
    assert keys == {f"{n:032x}" for n in (0, 1, 2)}, "an earlier failure stands"
    later = rows(OK, minute=60 * 24 * 365, first=3)
    rerun.add_part(later)
    assert len(rerun.written()) == 4
    table = rerun.finish()
    assert table.num_rows == 4
    assert table.column("status").to_pylist() == ["ok", "failed", "ok", "ok"]
    assert len(ShardCaptions(dataset, "me", "00000").finished()) == 4


def test_several_collapses_are_remembered_and_a_damaged_note_is_named(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "data", {}, {})
    assert collapses(dataset, "me") == []
    note_collapse(dataset, "me", NOON)
    note_collapse(dataset, "me", NOON)
    assert [since for since, _ in collapses(dataset, "me")] == [NOON, NOON]
    next((dataset.directory / "captioners").glob("me.*")).write_text("[1]")
    with pytest.raises(DatasetError, match="is damaged; delete it"):
        collapses(dataset, "me")
