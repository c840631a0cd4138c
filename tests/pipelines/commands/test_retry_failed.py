"""`--retry-failed` through all of `caplab curate`: the tables are those of an unbroken run."""

import pyarrow.parquet as pq
import pytest

from curate.store.dataset import Dataset
from pipelines.commands.curate import curate
from pipelines.demo.demo import curate_settings
from pipelines.world.serve import serve
from tests.ports import free_port

pytestmark = pytest.mark.usefixtures("one_process")


def tables(dataset: Dataset) -> dict[str, list[dict]]:
    """Every per-shard table's rows, by path."""
    found = sorted(dataset.directory.glob("tables/*/**/0*.parquet"))
    return {str(p.relative_to(dataset.directory)): pq.read_table(p).to_pylist() for p in found}


def alike(a: object, b: object) -> bool:
    """Equal, numbers up to the rounding of a batch of another size."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[name], b[name]) for name in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == pytest.approx(b, abs=5e-3, rel=5e-3, nan_ok=True)
    return a == b


def copies(dataset: Dataset) -> set[tuple[str, str, str]]:
    rows = dataset.read_table("duplicate_pairs").to_pylist()
    return {(row["method"], row["key_a"], row["key_b"]) for row in rows}


def test_a_retry_completes_scores_captions_duplicates_and_selection(small_web, tmp_path):
    """Every third URL is of a host that is down at first."""
    dead = free_port()
    rows = pq.read_table(small_web.urls).slice(0, 36)
    place = rows.column_names.index("url")
    urls = [
        url.replace(f":{small_web.port}/", f":{dead}/") if number % 3 == 0 else url
        for number, url in enumerate(rows.column("url").to_pylist())
    ]
    # A column to import, so that scores of the list are completed as well.
    rows = rows.set_column(place, "url", [urls])
    rows = rows.append_column("punsafe", [[number / 36 for number in range(36)]])
    listing = tmp_path / "urls.parquet"
    pq.write_table(rows, listing)
    settings = curate_settings(small_web.settings).model_copy(
        update={"rows_per_shard": 18, "retries": 0}
    )
    retried, unbroken = tmp_path / "retried", tmp_path / "unbroken"
    with serve(small_web.directory, small_web.port):
        first = curate(listing, retried, settings)
        assert "connection_refused 12" in first.accounting
        with serve(small_web.directory, dead):
            done = curate(listing, retried, settings, retry_failed=True)
            whole = curate(listing, unbroken, settings)
    assert done.text() == whole.text()
    a, b = Dataset.open(retried), Dataset.open(unbroken)
    for shard in b.shards():
        assert a.shard_path(shard).read_bytes() == b.shard_path(shard).read_bytes()
    assert alike(tables(a), tables(b))
    assert copies(a) == copies(b)
    assert set(a.selection_keys("clean")) == set(b.selection_keys("clean"))


def test_without_scores_nothing_is_loaded_and_the_next_call_goes_on(small_web, tmp_path):
    settings = curate_settings(small_web.settings)
    out = tmp_path / "data"
    with serve(small_web.directory, small_web.port):
        summary = curate(small_web.urls, out, settings, until="download")
    assert summary.text() == summary.accounting
    dataset = Dataset.open(out)
    assert dataset.has_table("samples")
    assert not dataset.has_table("scores")
