"""The bar of a run: what workers tell of a task under way, and what it comes to in the end."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from curate.base.progress import advance, counted
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from pipelines.runners import told
from pipelines.runners.local import Local
from pipelines.runners.shards import run_stage
from pipelines.runners.told import Board, telling


def test_rows_of_a_task_under_way_move_the_bar_and_count_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(told, "_EVERY_SECONDS", 0.0)
    folder, bar = tmp_path / "told", tqdm(total=100, initial=10, file=io.StringIO())
    board = Board(folder, bar)
    seen = []
    with telling(folder, "00000", 50, lambda: (board.read(), seen.append(bar.n))):
        advance(20)
        advance(20.5)
        advance(60)  # some were tried twice
    assert seen == [30, 50, 60]
    board.end("00000", 50)
    assert bar.n == 60
    with telling(folder, "00001", 40, None):
        advance(30)
    board.read()
    assert bar.n == 90
    board.end("00001", 0)  # it failed, and a later try begins anew
    board.end("00001", 40)
    assert bar.n == 100
    board.clear()
    assert not folder.exists()


def test_nobody_need_listen_and_the_nearest_one_does():
    heard: list[float] = []
    advance(1)
    with counted(heard.append):
        advance(2)
        with counted(lambda rows: None):
            advance(3)
        advance()
    advance(4)
    assert heard == [2, 1]


class Watched(Stage):
    """Tells of a row, and writes what the folder says then."""

    name = "watched"
    adds = ("samples",)

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        told._EVERY_SECONDS = 0.0  # of this worker
        advance(0)
        found = [path.name for path in dataset.directory.glob(".told-watched/*")]
        (dataset.directory / f"{shard}.seen").write_text(",".join(found))
        return {}

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        return (dataset.directory / f"{shard}.seen").exists()


def test_a_run_leaves_nothing_told_and_a_rerun_says_what_was_there(tmp_path: Path, capsys):
    made = Dataset(tmp_path)
    made.input_path("00000").parent.mkdir()
    for shard in ("00000", "00001"):
        pq.write_table(pa.table({"key": ["a", "b"]}), made.input_path(shard))
    (tmp_path / ".told-watched").mkdir()
    (tmp_path / ".told-watched" / "00001.rows").write_text("2")  # of a run that was killed
    (tmp_path / "00001.seen").touch()
    run_stage(Local(), Watched(), made)
    assert not (tmp_path / ".told-watched").exists()
    run_stage(Local(), Watched(), made)
    said = capsys.readouterr().err
    assert "watched: 1 of 2 shards there before" in said
    assert "watched: 2 of 2 shards there before" in said
