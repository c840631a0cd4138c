"""The download stage: a shard of URLs becomes a shard of pictures and a row for every URL.

img2dataset's Downloader is the engine (threads, bounded spooling). What it cannot be steered to do
is put in from outside: our opener (curate.safe_http), our resizer (curate.resize) and our writer,
which puts samples into input order and every row, stored or failed, into the samples table.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import tempfile
import threading
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import FAILED, STORED, Dataset
from curate.download_settings import DownloadSettings
from curate.img2dataset_engine import load_downloader
from curate.reasons import Failure, FailureError, Reason
from curate.resize import StoredImage
from curate.safe_http import SafeOpener
from curate.shards import write_shard
from curate.stage import Stage
from curate.urls import parse_url

_log = logging.getLogger(__name__)


class DownloadStage(Stage):
    """Fetches one shard: writes `shards/SHARD.tar`, then the samples table, which says it is done.

    Every input row gets exactly one samples row. The same files behind the URLs give the same
    bytes. Cost grows with the number of URLs; memory with `threads` (at most 2 x threads x
    max_bytes of undecoded files) and not with the shard, whose pictures wait in a temporary file
    for their turn.
    """

    name: ClassVar[str] = "download"
    adds: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(self, settings: DownloadSettings) -> None:
        """Nothing is fetched or imported yet."""
        self.settings = settings

    def open(self) -> None:
        """Import img2dataset, once a worker."""
        # What Pillow warns of (odd tags, large sizes) the resizer decides on itself.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        load_downloader()

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Fetch a shard; returns stored and each reason with its number of rows."""
        rows = pq.read_table(dataset.input_path(shard))
        shards_directory = dataset.shard_path(shard).parent
        shards_directory.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(dataset, shard)
        with tempfile.TemporaryFile(dir=shards_directory) as spool:
            outcomes = self._fetch(rows.column("url").to_pylist(), spool)
            write_shard(dataset.shard_path(shard), _members(rows, outcomes, spool))
        dataset.write_table("samples", _samples(rows, outcomes, shard), shard)
        return dict(Counter(_label(outcome) for outcome in outcomes))

    def _fetch(self, urls: list[str | None], spool: IO[bytes]) -> list[_Outcome]:
        """What became of each URL, in order; the pictures' bytes go to `spool`."""
        collector = _Collector(spool)
        for position, url in enumerate(urls):
            failure = _malformed(url)
            if failure is not None:
                collector.outcomes[position] = failure
        wanted = [position for position in range(len(urls)) if position not in collector.outcomes]
        if wanted:
            self._run_img2dataset(urls, wanted, collector)
        lost = Failure(Reason.UNEXPECTED, "lost inside img2dataset")
        return [collector.outcomes.get(position, lost) for position in range(len(urls))]

    def _run_img2dataset(
        self, urls: list[str | None], wanted: list[int], collector: _Collector
    ) -> None:
        printed = io.StringIO()
        with tempfile.TemporaryDirectory(prefix="caplab-download-") as scratch:
            listing = Path(scratch) / "urls.arrow"
            table = pa.table({"url": [urls[position] for position in wanted], "position": wanted})
            with pa.OSFile(str(listing), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
                out.write_table(table)
            downloader = load_downloader()(
                sample_writer_class=lambda *_: collector,
                resizer=self.settings.resizer(),
                thread_count=min(self.settings.threads, len(wanted)),
                save_caption=False,
                extract_exif=False,
                output_folder=scratch,
                column_list=["url", "position"],
                timeout=self.settings.timeout,
                number_sample_per_shard=max(2, len(wanted)),
                oom_shard_count=5,
                compute_hash=None,
                verify_hash_type=None,
                encode_format=self.settings.encode_format,
                # Retries and X-Robots-Tag are the opener's business: it knows which errors can
                # pass, and keeps them within the URL's total time.
                retries=0,
                user_agent_token=None,
                disallowed_header_directives=None,
            )
            opener = SafeOpener(self.settings.http_limits())
            with (
                _installed(opener),
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
            ):
                downloader.download_shard((0, str(listing)))
        if printed.getvalue():
            _log.debug("img2dataset printed: %s", printed.getvalue())
        # img2dataset prints a writer's exception and goes on; a full disk must not pass as that.
        if collector.error is not None:
            raise collector.error


@dataclass(frozen=True)
class _Spooled:
    """A stored picture whose bytes wait in the spool."""

    image: StoredImage  # without its bytes
    offset: int
    size: int


_Outcome = _Spooled | Failure


class _Collector:
    """Stands where img2dataset expects a sample writer; called from one thread."""

    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool
        self._end = 0
        self.outcomes: dict[int, _Outcome] = {}
        self.error: Exception | None = None

    def write(
        self, img_str: StoredImage | None, key: str, caption: str | None, meta: dict[str, Any]
    ) -> None:
        """Take one finished row; `key` and `caption` are img2dataset's and not ours."""
        if img_str is None:
            self.outcomes[meta["position"]] = Failure.unpack(meta["error_message"])
            return
        try:
            self._spool.write(img_str.content)
        except OSError as error:
            self.error = error
            return
        size = len(img_str.content)
        self.outcomes[meta["position"]] = _Spooled(replace(img_str, content=b""), self._end, size)
        self._end += size

    def close(self) -> None:
        """Nothing to close: the stage reads the spool next."""


_OPENER_LOCK = threading.Lock()


@contextlib.contextmanager
def _installed(opener: urllib.request.OpenerDirector) -> Iterator[None]:
    """Make `opener` the one that urllib.request.urlopen uses, and put the old one back after."""
    with _OPENER_LOCK:
        before = urllib.request._opener  # type: ignore[attr-defined]
        urllib.request.install_opener(opener)
        try:
            yield
        finally:
            urllib.request.install_opener(before)


def _malformed(url: str | None) -> Failure | None:
    """Why a URL need not even be tried."""
    if url is None or not url.strip():
        return Failure(Reason.NO_URL)
    try:
        parse_url(url)
    except FailureError as error:
        return error.failure
    return None


def _remove_leftovers(dataset: Dataset, shard: str) -> None:
    """Delete half-written files of this shard that a killed run left behind."""
    for leftover in dataset.shard_path(shard).parent.glob(f".{shard}.tar.*.tmp"):
        leftover.unlink(missing_ok=True)


def _label(outcome: _Outcome) -> str:
    return outcome.reason.value if isinstance(outcome, Failure) else STORED


def _members(
    rows: pa.Table, outcomes: list[_Outcome], spool: IO[bytes]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The tar's samples in input order: picture, text, and the row's fields as JSON."""
    own = [name for name in rows.column_names if name in ("key", "row", "url", "alt_text")]
    for row, outcome in zip(_row_dicts(rows), outcomes, strict=True):
        if isinstance(outcome, Failure):
            continue
        image = outcome.image
        spool.seek(outcome.offset)
        fields = {name: row[name] for name in own}
        fields |= {
            "width": image.width,
            "height": image.height,
            "original_width": image.original_width,
            "original_height": image.original_height,
            "original_format": image.original_format,
            "original_bytes": image.original_bytes,
            "format": image.format,
            "sha256": image.sha256,
        }
        for name, value in row.items():
            if name not in own:
                fields[f"input_{name}" if name in fields else name] = _finite(value)
        yield (
            row["key"],
            {
                image.format: spool.read(outcome.size),
                "txt": (row["alt_text"] or "").encode("utf-8"),
                "json": json.dumps(fields, ensure_ascii=False, default=str).encode("utf-8"),
            },
        )


def _row_dicts(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in rows.to_batches(max_chunksize=1000):
        yield from batch.to_pylist()


def _finite(value: Any) -> Any:
    """NaN and infinities have no JSON; they become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _samples(rows: pa.Table, outcomes: list[_Outcome], shard: str) -> pa.Table:
    """The samples table of a shard: one row an input row, in input order."""
    images = [None if isinstance(outcome, Failure) else outcome.image for outcome in outcomes]
    failures = [outcome if isinstance(outcome, Failure) else None for outcome in outcomes]
    sources = [image or failure for image, failure in zip(images, failures, strict=True)]
    columns = {
        "status": [FAILED if failure else STORED for failure in failures],
        "reason": [failure and failure.reason.value for failure in failures],
        "detail": [failure and (failure.detail or None) for failure in failures],
        "original_width": [source and source.original_width for source in sources],
        "original_height": [source and source.original_height for source in sources],
        "original_format": [image and image.original_format for image in images],
        "original_bytes": [image and image.original_bytes for image in images],
        "width": [image and image.width for image in images],
        "height": [image and image.height for image in images],
        "format": [image and image.format for image in images],
        "sha256": [image and image.sha256 for image in images],
    }
    given = {name: rows.column(name) for name in ("key", "row", "url", "alt_text")}
    return pa.table({**given, "shard": [shard] * rows.num_rows, **columns})
