"""The download stage: a shard of URLs becomes a shard of pictures and a row for every URL.

img2dataset's Downloader is the engine (threads, bounded spooling). What it cannot be steered to do
is put in from outside: our opener (curate.safe_http), our resizer (curate.resize) and our writer,
which puts samples into input order and every row, stored or failed, into the samples table.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.dataset import Dataset
from curate.download_settings import DownloadSettings
from curate.img2dataset_engine import load_downloader
from curate.outcomes import Outcome, Spool, intake_failures, write_outcomes
from curate.reasons import Failure, FailureError, Reason
from curate.resize import StoredImage
from curate.safe_http import SafeOpener
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
        with tempfile.TemporaryFile(dir=shards_directory) as file:
            spool = Spool(file)
            outcomes = self._fetch(rows, spool)
            return write_outcomes(dataset, shard, rows, outcomes, spool)

    def _fetch(self, rows: pa.Table, spool: Spool) -> list[Outcome]:
        """What became of each row, in order; the pictures' bytes go to `spool`."""
        collector = _Collector(spool)
        collector.outcomes.update(intake_failures(rows))
        urls = rows.column("url").to_pylist()
        for position, url in enumerate(urls):
            failure = _malformed(url)
            if failure is not None:
                collector.outcomes.setdefault(position, failure)
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


class _Collector:
    """Stands where img2dataset expects a sample writer; called from one thread."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.outcomes: dict[int, Outcome] = {}
        self.error: Exception | None = None

    def write(
        self, img_str: StoredImage | None, key: str, caption: str | None, meta: dict[str, Any]
    ) -> None:
        """Take one finished row; `key` and `caption` are img2dataset's and not ours."""
        if img_str is None:
            self.outcomes[meta["position"]] = Failure.unpack(meta["error_message"])
            return
        try:
            self.outcomes[meta["position"]] = self._spool.add(img_str)
        except OSError as error:
            self.error = error

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
