"""Build the index of a run from a dataset's tables: sorted by DuckDB on disk, written in passing.

Nothing here grows with the number of rows: DuckDB sorts within a limit of memory, what it yields
is folded a record batch at a time, and scores' quantiles are found by counting.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.base.errors import ConfigError, DatasetError
from curate.base.files import fingerprint, temporary_path, write_json
from curate.base.settings import nearest
from curate.store.caption_blend import blend_order, hash_uniform, key_numbers
from curate.store.captions import accepted_sql, caption_writers, sources_read
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan, sql_name, sql_text
from train.data import columns as stored
from train.data.columns import Column, Writer
from train.data.rows import HELD_OUT, RECORD, ROWS, TRAINING, WEIGHTS
from train.model_settings import ModelConfig
from train.settings import TrainSettings

if TYPE_CHECKING:
    import pyarrow as pa

_HOLD_OUT_STREAM = 5
_FORMAT = 2
_MEMORY = "512MB"  # of DuckDB, which sorts the rest on disk
_THREADS = 2  # each wants some 100 MB of it


def available_kinds(
    dataset: Dataset, caption_sources: Mapping[str, str] | None = None
) -> list[str]:
    """Caption kinds of which it is clear whose to take: one writer, or one is named."""
    writers: dict[str, int] = {}
    connection = dataset.connect(["captions"])
    for source in dataset.caption_sources():
        found = connection.execute(
            f"SELECT DISTINCT kind FROM {dataset.scan('captions', source)} WHERE status = 'ok'"
        ).fetchall()
        for (kind,) in found:
            writers[kind] = writers.get(kind, 0) + 1
    return sorted(k for k, n in writers.items() if n == 1 or k in (caption_sources or {}))


def bucket_sizes(settings: TrainSettings, resolution: int) -> list[tuple[int, int]]:
    """(width, height) of all buckets, from tall to wide; of about resolution**2 pixels each."""
    if not settings.aspect_buckets:
        return [(resolution, resolution)]
    step, most = settings.bucket_step, settings.max_aspect
    sizes = set()
    for width in range(step, int(resolution * math.sqrt(most)) + step, step):
        height = max(round(resolution**2 / width / step), 1) * step
        area = width * height / resolution**2
        if max(width / height, height / width) <= most and 0.7 < area < 1.4:
            sizes |= {(width, height), (height, width)}
    if not sizes:
        raise ConfigError(
            f"No bucket of about {resolution} px has sides that are multiples of bucket_step = "
            f"{step}; lower it."
        )
    return sorted(sizes, key=lambda size: (size[0] / size[1], size))


# ---- what is asked for -------------------------------------------------------------------------


def requested(
    dataset: Dataset,
    settings: TrainSettings,
    config: ModelConfig,
    selection: str,
    caption_sources: Mapping[str, str] | None,
    keys: Sequence[str] | None,
) -> dict[str, Any]:
    """All that an index hangs on: settings, and the files it is made from.

    Raises:
        ConfigError, DatasetError: as `build_index`, of what can be seen without reading a row.
    """
    blend = blend_order(settings.captions)
    kinds = sorted({*blend, *available_kinds(dataset, caption_sources)})
    writers = caption_writers(dataset, kinds, caption_sources)
    selections = [selection]
    if settings.prior_selection is not None:
        selections.append(settings.prior_selection)
    known = dataset.selections()
    for name in selections:
        if name not in known:
            told = ", ".join(known) or "none yet; make one with `caplab select`"
            raise DatasetError(f"There is no selection {name!r} (selections: {told}).")
    files = [dataset.selection_path(name) for name in selections]
    files += dataset.table_files("samples")
    files += [f for s in sources_read(dataset, writers) for f in dataset.table_files("captions", s)]
    if settings.condition_on:
        files += dataset.table_files("scores")
        _check_scores(dataset, settings.condition_on)
    stamps = hashlib.sha256()
    for path in files:
        stat = path.stat()
        relative = path.relative_to(dataset.directory)
        stamps.update(f"{relative}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return {
        "format": _FORMAT,
        "selections": selections,
        "kinds": writers,
        # Arms of several blends share one index, unless pictures are left out by it.
        "whole": sorted(blend) if settings.missing_captions == "drop" else [],
        **({"any": sorted(blend)} if settings.missing_captions == "fallback" else {}),
        "sizes": bucket_sizes(settings, config.resolution),
        "held_out": [settings.validation_share, settings.validation_samples],
        "held_out_size": config.resolution,
        "prior_loss_weight": settings.prior_loss_weight,
        "conditions": list(settings.condition_on),
        "condition_buckets": settings.condition_buckets,
        "keys": None if keys is None else fingerprint(sorted(keys)),
        "files": stamps.hexdigest(),
    }


def _check_scores(dataset: Dataset, columns: Sequence[str]) -> None:
    described = dataset.connect(["scores"]).execute("DESCRIBE scores").fetchall()
    numeric = ("FLOAT", "DOUBLE", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "BOOLEAN")
    known = {row[0]: row[1] for row in described if row[0] != "key"}
    for column in columns:
        if column not in known:
            scores = [name for name, kind in known.items() if kind in numeric]
            hint = nearest(column, scores) if scores else "there are no scores yet."
            raise ConfigError(f"condition_on: there is no score {column!r}; {hint}")
        if known[column] not in numeric:
            raise ConfigError(f"condition_on: {column} holds {known[column]}, which is no number.")


def _rename(temporary: Path, home: Path) -> None:
    if home.exists() and not (home / RECORD).exists():
        shutil.rmtree(home)
    try:
        temporary.rename(home)
    except OSError:
        # Another process of the same study was quicker; what it made is the same.
        if not (home / RECORD).exists():
            raise


# ---- the build ---------------------------------------------------------------------------------


class Build:
    """One build: rows from DuckDB, folded, parted and written."""

    def __init__(
        self, dataset: Dataset, settings: TrainSettings, request: Mapping[str, Any]
    ) -> None:
        self.dataset, self.settings, self.request = dataset, settings, request
        self.folder = Path()
        self.kinds: list[str] = list(request["kinds"])
        self.seen = self.stored = self.dropped = self.apart = 0
        self.lacking = dict.fromkeys(self.kinds, 0)

    def write(self, home: Path, keys: Sequence[str] | None) -> None:
        """All files of the index, whole or not at all."""
        self.folder = temporary_path(home)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            self._write(keys)
            _rename(self.folder, home)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, keys: Sequence[str] | None) -> None:
        import pyarrow as pa

        held: pa.Table | None = None
        writer = Writer(self.folder / f"{TRAINING}.arrow")
        for samples in self._samples(keys):
            training, apart = self._parted(samples)
            writer.add(training)
            held = apart if held is None else pa.concat_tables([held, apart])
            held = held.sort_by("u").slice(0, self.settings.validation_samples)
        self._check(writer.rows)
        writer.close()
        assert held is not None
        apart_writer = Writer(self.folder / f"{HELD_OUT}.arrow")
        apart_writer.add(held)
        apart_writer.close()
        weighted = stored.write_weights(self.folder / WEIGHTS, writer)
        edges = {
            name: stored.quantiles(
                Column(writer.path, f"score_{number}"), self.settings.condition_buckets
            )
            for number, name in enumerate(self.settings.condition_on)
        }
        buckets, start = [], 0
        for number, (width, height) in enumerate(self.request["sizes"]):
            rows = writer.buckets.get(number, 0)
            if rows:
                stop = start + rows
                buckets.append({"width": width, "height": height, "start": start, "stop": stop})
                start = stop
        side = self.request["held_out_size"]
        square = {"width": side, "height": side, "start": 0, "stop": held.num_rows}
        content = writer.content() | {"layout": fingerprint([buckets, edges, weighted])}
        write_json(
            self.folder / RECORD,
            {
                "request": self.request,
                "kinds": self.kinds,
                "dropped": self.dropped,
                "lacking": self.lacking,
                "weighted": weighted,
                "conditions": edges,
                TRAINING: {
                    "rows": writer.rows,
                    "buckets": buckets,
                    "content": content,
                },
                HELD_OUT: {
                    "rows": held.num_rows,
                    "buckets": [square],
                    "content": {"key": fingerprint([held.column("key").to_pylist(), side])},
                },
            },
        )

    # ---- rows as they come --------------------------------------------------------------------

    def _samples(self, keys: Sequence[str] | None) -> Iterator[pa.Table]:
        """Tables of whole samples, in order, with their captions in lists."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        connection = self.dataset.connect(["samples", "scores"])
        scratch = self.folder / "scratch"
        connection.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = {_THREADS}")
        connection.execute(f"SET temp_directory = {sql_text(scratch)}")
        wanted = None
        if keys is not None:
            wanted = self.folder / "wanted.parquet"
            pq.write_table(pa.table({"key": pa.array(keys, pa.string())}), wanted)
        connection.execute(f"CREATE TEMP VIEW chosen AS {self._chosen(wanted)}")
        ((self.seen, self.stored),) = connection.execute(
            "SELECT count(*), count(s.key) FROM chosen LEFT JOIN (SELECT key FROM samples WHERE "
            "status = 'stored') s USING (key)"
        ).fetchall()
        if not self.seen:
            raise DatasetError(
                f"The selection {self.request['selections'][0]!r} is empty; there is nothing to "
                f"train on."
            )
        if self.stored < self.seen:
            raise DatasetError(
                f"{self.seen - self.stored} selected samples are not stored; `caplab check "
                f"{self.dataset.directory}` says what repairs it."
            )
        rest: pa.Table | None = None
        relation = connection.sql(self._rows())
        # DuckDB 2 renamed the streaming reader.
        renamed = hasattr(relation, "to_arrow_reader")
        read = relation.to_arrow_reader if renamed else relation.fetch_arrow_reader
        for batch in read(ROWS):
            if not batch.num_rows:
                continue
            rows = pa.Table.from_batches([batch])
            rows = (rows if rest is None else pa.concat_tables([rest, rows])).combine_chunks()
            starts = stored.starts_of(rows.column("key"))
            # The last sample may go on in the next batch.
            rest = rows.slice(int(starts[-1]))
            if len(starts) > 1:
                yield self._folded(rows.slice(0, int(starts[-1])), starts[:-1])
        if rest is not None:
            yield self._folded(rest.combine_chunks(), np.zeros(1, np.int64))
        connection.close()
        shutil.rmtree(scratch, ignore_errors=True)
        if wanted is not None:
            wanted.unlink()

    def _chosen(self, wanted: Path | None) -> str:
        """SQL of key, weight and prior of what is selected."""
        import pyarrow.parquet as pq

        parts = []
        for number, name in enumerate(self.request["selections"]):
            path = self.dataset.selection_path(name)
            weight = "weight" if "weight" in pq.read_schema(path).names else "1"
            part = (
                f"SELECT key, {weight}::DOUBLE AS weight, {number == 1} AS prior "
                f"FROM {parquet_scan(path)}"
            )
            if number:
                first = self.dataset.selection_path(self.request["selections"][0])
                part += f" WHERE key NOT IN (SELECT key FROM {parquet_scan(first)})"
            elif wanted is not None:
                part += f" WHERE key IN (SELECT key FROM {parquet_scan(wanted)})"
            parts.append(part)
        return " UNION ALL ".join(parts)

    def _rows(self) -> str:
        """SQL of one row a sample and caption, in the order of the index."""
        ratios = [width / height for width, height in self.request["sizes"]]
        middles = [math.sqrt(a * b) for a, b in itertools.pairwise(ratios)]
        bucket = (
            " + ".join(f"(s.width > {m!r}::DOUBLE * s.height)::INTEGER" for m in middles) or "0"
        )
        columns = self.settings.condition_on
        scores = "".join(f", x.{sql_name(c)}::FLOAT AS score_{n}" for n, c in enumerate(columns))
        joined = "LEFT JOIN scores x USING (key)" if columns else ""
        # Without a sample_index, as where a table was written by hand, a caption is the first.
        captions = " UNION ALL ".join(
            f"SELECT key, {number} AS kind, coalesce(sample_index, 0)::INTEGER AS sample_index, "
            f"text FROM ({accepted_sql(self.dataset, kind, writer)})"
            for number, (kind, writer) in enumerate(self.request["kinds"].items())
        )
        return (
            f"SELECT s.key, s.shard, s.width, s.height, s.sha256, c.weight, c.prior, "
            f"{bucket} AS bucket{scores}, t.kind, t.sample_index, t.text "
            f"FROM chosen c JOIN samples s USING (key) {joined} "
            f"LEFT JOIN ({captions}) t USING (key) WHERE s.status = 'stored' "
            f"ORDER BY bucket, s.shard, s.row, s.key, t.kind, t.sample_index, t.text"
        )

    def _folded(self, rows: pa.Table, starts: NDArray[np.int64]) -> pa.Table:
        """One row a sample, from one row a caption; `starts` are the samples' first rows."""
        import pyarrow as pa

        first = rows.take(pa.array(starts))
        keys = first.column("key").to_pylist()
        columns = {"key": first.column("key"), "number": pa.array(key_numbers(keys))}
        for name in ("shard", "width", "height", "sha256", "weight", "prior", "bucket"):
            columns[name] = first.column(name)
        for number in range(len(self.settings.condition_on)):
            score = first.column(f"score_{number}")
            columns[f"score_{number}"] = score.fill_null(float("nan"))
        kind = rows.column("kind").fill_null(-1).to_numpy()
        sample = np.searchsorted(starts, np.arange(rows.num_rows), "right") - 1
        for number, name in enumerate(self.kinds):
            here = np.flatnonzero(kind == number)
            counts = np.bincount(sample[here], minlength=len(starts))
            offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            own = rows.select(["sample_index", "text"]).take(pa.array(here)).combine_chunks()
            inside = [stored.one_array(own.column(n)) for n in ("sample_index", "text")]
            texts = pa.StructArray.from_arrays(inside, names=["sample_index", "text"])
            columns[f"captions_{name}"] = pa.ListArray.from_arrays(pa.array(offsets), texts)
        return pa.table(columns)

    # ---- what becomes of them -----------------------------------------------------------------

    def _parted(self, samples: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Samples to train on, and held-out ones with their hash; counts what is wrong."""
        import pyarrow as pa

        settings = self.settings
        have = {
            name: stored.list_lengths(samples.column(f"captions_{name}")) > 0 for name in self.kinds
        }
        if needed := self.request["whole"] or self.request.get("any"):
            enough = np.logical_and if self.request["whole"] else np.logical_or
            kept = enough.reduce([have[name] for name in needed])
            self.dropped += int((~kept).sum())
            samples = samples.filter(pa.array(kept))
            have = {name: there[kept] for name, there in have.items()}
        u = hash_uniform(samples.column("number").to_numpy(), 0, 0, _HOLD_OUT_STREAM)
        prior = samples.column("prior").to_numpy(zero_copy_only=False)
        # By the key alone: the same in every run, and in a selection that has grown since.
        apart = (u < settings.validation_share) & (settings.validation_samples > 0) & ~prior
        self.apart += int(apart.sum())
        for name, there in have.items():
            self.lacking[name] += int((~there & ~apart).sum())
        loss = np.where(prior, settings.prior_loss_weight, 1.0).astype(np.float32)
        samples = samples.append_column("loss_weight", pa.array(loss))
        held = samples.filter(pa.array(apart)).append_column("u", pa.array(u[apart]))
        return samples.filter(pa.array(~apart)), held

    def _check(self, training: int) -> None:
        """Refuse what cannot be trained on, once all rows were seen."""
        total = training + self.apart
        if not total:
            whole = self.request["whole"]
            told = ", ".join(whole or self.request["any"])
            raise ConfigError(f"No sample has captions of {'all' if whole else 'any'} of {told}.")
        if not training:
            raise ConfigError(f"All {total} samples would be held out; lower validation_share.")
