"""img2dataset's own downloader, resizer and writer as our download stage, one shard a task.

For a dataset that is to be made exactly as others are made with img2dataset: what its shard would
hold, byte for byte, stands in ours, in the order of the input and under our keys. Two things are
added. Its requests go only where ours may go (no file://, no private address, no environment's
proxy), and each row that it loses is a row with a reason. Its statistics and its Parquet table of a
shard are kept in DIR/img2dataset/.

The package imports wandb and pandas, which takes seconds: it is imported by the worker alone.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import shutil
import ssl
import tarfile
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.arrow_columns import readable, to_python
from curate.base.errors import ConfigError
from curate.base.progress import advance
from curate.base.reasons import Failure, FailureError, Reason
from curate.download.addresses import Resolver, lookup
from curate.download.connections import connect_any
from curate.download.img2dataset_files import LISTED, NotingResizer
from curate.download.settings import DownloadSettings
from curate.download.wire import Deadline
from curate.pictures.hash_list import hash_list
from curate.pictures.resize import StoredImage
from curate.store.contract import STORED
from curate.store.dataset import Dataset
from curate.store.shards import write_shard
from curate.store.stage import Stage
from curate.store.write_samples import (
    ALT_TEXTS,
    FAILURE,
    FAILURE_DETAIL,
    Outcome,
    Spooled,
    intake_failures,
    is_stored,
    sample_rows,
)

FOLDER = "img2dataset"
"""Under the dataset's directory: SHARD_stats.json and SHARD.parquet, as img2dataset writes them."""

_OWN_COLUMNS = frozenset({"caption", "key", "status", "error_message", "exif"}) | {
    f"{prefix}{side}" for prefix in ("", "original_") for side in ("width", "height")
}
_LEFT_OUT = frozenset({"key", "row", "url", "alt_text", FAILURE, FAILURE_DETAIL, ALT_TEXTS})

# Its messages are the words of whatever raised; the first pattern that is found in them counts.
_DOWNLOAD_ERRORS = (
    (r"disallowed by X-Robots-Tag", Reason.DISALLOWED_BY_HEADER),
    (r"^hash mismatch$", Reason.HASH_MISMATCH),
    (r"redirect error that would lead to an infinite loop", Reason.TOO_MANY_REDIRECTS),
    (r"HTTP Error 30\d: .* - Redirection to url", Reason.UNSUPPORTED_SCHEME),
    (r"HTTP Error (403|404|410|429)\b", None),
    (r"HTTP Error 4\d\d", Reason.HTTP_4XX),
    (r"HTTP Error 5\d\d", Reason.HTTP_5XX),
    (r"HTTP Error", Reason.HTTP_OTHER),
    (r"timed out|total time is over", Reason.TIMEOUT),
    (r"\[SSL|certificate|_ssl\.c", Reason.TLS),
    (r"Connection refused", Reason.CONNECTION_REFUSED),
    (r"IncompleteRead", Reason.INCOMPLETE_BODY),
    (r"Connection reset|Broken pipe|closed connection|unreachable", Reason.CONNECTION_LOST),
    (r"^unknown url type: ''$", Reason.NO_URL),
    (r"unknown url type: '|no host given|nonnumeric port|control characters", Reason.BAD_URL),
    (r"codec can't encode|Invalid IPv6|label empty or too long", Reason.BAD_URL),
    (r"unknown url type", Reason.UNSUPPORTED_SCHEME),
    (r"BadStatusLine|got more than|invalid literal for int|HTTP/", Reason.BAD_RESPONSE),
)
_RESIZE_ERRORS = (
    (r"^Image decoding error$", Reason.NOT_AN_IMAGE),
    (r"^image too small$", Reason.TOO_SMALL),
    (r"^image area too large$", Reason.TOO_MANY_PIXELS),
    (r"^aspect ratio too large$", Reason.ASPECT),
    (rf"^{LISTED}", Reason.LISTED_HASH),
)


class Img2datasetStage(Stage):
    """Downloads one shard through img2dataset; writes its tar, then the samples table."""

    name: ClassVar[str] = "download"
    adds: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(self, settings: DownloadSettings) -> None:
        """Nothing is fetched, and img2dataset not imported, yet.

        Raises:
            ConfigError: a hash list that cannot be read.
        """
        self.settings = settings
        hash_list(settings.hash_list, settings.hash_distance, settings.hash_turned)

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the shard's samples table and its tar are there and whole."""
        return is_stored(dataset, shard)

    def open(self) -> None:
        """Import img2dataset, quietly."""
        _img2dataset()

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Download a shard; returns stored and each reason with its number of rows.

        Raises:
            ConfigError: the list lacks the column of boxes.
        """
        rows = pq.read_table(dataset.input_path(shard))
        broken = intake_failures(rows)
        listed = [position for position in range(rows.num_rows) if position not in broken]
        kept = dataset.directory / FOLDER
        scratch = kept / f"{shard}.tmp"
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        scratch.mkdir(parents=True)
        try:
            found = (
                self._download(rows.take(pa.array(listed, pa.int64())), scratch) if listed else {}
            )
            outcomes: list[Outcome] = [broken.get(n, _LOST) for n in range(rows.num_rows)]
            for place, outcome in found.items():
                outcomes[listed[place]] = outcome
            keys = rows.column("key").to_pylist()
            order = [k for k, o in zip(keys, outcomes, strict=True) if isinstance(o, Spooled)]
            dataset.shard_path(shard).parent.mkdir(parents=True, exist_ok=True)
            note = write_shard(dataset.shard_path(shard), _in_order(scratch / "00000.tar", order))
            for name in ("00000_stats.json", "00000.parquet") if listed else ():
                (scratch / name).replace(kept / name.replace("00000", shard, 1))
            samples = sample_rows(rows, outcomes, shard).replace_schema_metadata(note)
            dataset.write_table("samples", samples, shard)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return dict(Counter(o.reason.value if isinstance(o, Failure) else STORED for o in outcomes))

    def _download(self, rows: pa.Table, scratch: Path) -> dict[int, Outcome]:
        """Position in `rows` -> what became of it; tar, table and statistics lie in `scratch`."""
        settings, img2dataset = self.settings, _img2dataset()
        table = _its_columns(rows, settings)
        feather = scratch / "rows.feather"
        with pa.OSFile(str(feather), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        resizer = NotingResizer(
            img2dataset.resizer.Resizer(
                image_size=settings.image_size,
                resize_mode=settings.resize_mode,
                resize_only_if_bigger=not settings.upscale,
                encode_quality=settings.encode_quality,
                encode_format=settings.encode_format,
                skip_reencode=settings.skip_reencode,
                min_image_size=settings.min_side,
                max_image_area=settings.max_pixels,
                max_aspect_ratio=settings.max_aspect or float("inf"),
                blurrer=img2dataset.blurrer.BoundingBoxBlurrer() if settings.bbox_col else None,
            ),
            settings,
        )
        outcomes: dict[int, Outcome] = {}
        base = img2dataset.writer.WebDatasetSampleWriter
        verified = settings.verify_hashes and settings.compute_hash in table.column_names
        downloader = img2dataset.downloader.Downloader(
            sample_writer_class=partial(
                _writer_class(base), keys=rows["key"].to_pylist(), seen=resizer, outcomes=outcomes
            ),
            resizer=resizer,
            thread_count=settings.threads,
            save_caption=True,
            extract_exif=settings.extract_exif,
            output_folder=str(scratch),
            column_list=table.column_names,
            timeout=settings.timeout,
            number_sample_per_shard=rows.num_rows,
            oom_shard_count=5,
            compute_hash=settings.compute_hash,
            verify_hash_type=settings.compute_hash if verified else None,
            encode_format=settings.encode_format,
            retries=settings.retries,
            user_agent_token=settings.user_agent,
            disallowed_header_directives=settings.respect_robots_headers or None,
            blurring_bbox_col=settings.bbox_col,
        )
        with _guarded_urlopen(settings):
            downloader.download_shard((0, str(feather)))
        return outcomes


_LOST = Failure(Reason.UNEXPECTED, "img2dataset lost this row; its words stand in the log")


def reason_of(status: str, message: str) -> Failure:
    """img2dataset's status of a row and its error message as our reason; its words are kept."""
    named = re.match(r"(\w+): ", message)
    if named and status == "failed_to_download":
        with suppress(ValueError):  # what the guarded connection refused
            return FailureError(Reason.named(named[1]), message[named.end() :]).failure
    download = status == "failed_to_download"
    for pattern, reason in _DOWNLOAD_ERRORS if download else _RESIZE_ERRORS:
        if match := re.search(pattern, message):
            reason = reason or Reason.named(f"http_{match[1]}")
            return FailureError(reason, message).failure
    return FailureError(Reason.UNEXPECTED if download else Reason.BROKEN_IMAGE, message).failure


def _img2dataset() -> Any:
    """The package, imported without its question for updates and without its chatter."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    kept = tempfile.tempdir
    # wandb makes folders for its uploads, which a worker that is ended would leave behind.
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        try:
            import img2dataset.blurrer
            import img2dataset.downloader
            import img2dataset.resizer
            import img2dataset.writer
        finally:
            tempfile.tempdir = kept

    logging.getLogger("exifread").setLevel(logging.CRITICAL)
    return img2dataset


def _its_columns(rows: pa.Table, settings: DownloadSettings) -> pa.Table:
    """The rows as its reader hands them out: further columns, caption, hash, url.

    Values that JSON does not know become text, which img2dataset would lose the row over.
    """
    if settings.bbox_col is not None and settings.bbox_col not in rows.column_names:
        there = ", ".join(name for name in rows.column_names if name not in _LEFT_OUT)
        raise ConfigError(f"The list has no column {settings.bbox_col!r} of boxes; it has {there}.")
    columns: dict[str, Any] = {}
    for name in rows.column_names:
        if name in _LEFT_OUT or name == settings.compute_hash:
            continue
        column = rows.column(name)
        kind = column.type
        if pa.types.is_temporal(kind) or pa.types.is_decimal(kind) or pa.types.is_binary(kind):
            known = [None if value is None else readable(value) for value in to_python(column)]
            column = pa.array(known, pa.string())
        columns[f"input_{name}" if name in _OWN_COLUMNS else name] = column
    columns["caption"] = rows.column("alt_text")
    if settings.verify_hashes and (name := settings.compute_hash or "") in rows.column_names:
        columns[name] = rows.column(name)
    columns["url"] = rows.column("url").cast(pa.string()).fill_null("")
    return pa.table(columns)


def _writer_class(base: Any) -> Any:
    """Its writer with our keys for its running numbers, that notes what became of each row.

    Downloader calls resizer and writer of a row one after the other in one thread.
    """

    class NotingWriter(base):  # type: ignore[misc]
        def __init__(
            self,
            *args: Any,
            keys: list[str],
            seen: NotingResizer,
            outcomes: dict[int, Outcome],
        ) -> None:
            super().__init__(*args)
            self._keys, self._seen, self._outcomes = keys, seen, outcomes

        def write(self, img_str: bytes | None, key: str, caption: str | None, meta: Any) -> None:
            place = int(key)
            ours = meta["key"] = self._keys[place]
            super().write(img_str, ours, caption, meta)
            advance()
            if img_str is None:
                self._outcomes[place] = reason_of(meta["status"], str(meta["error_message"]))
                return
            image = StoredImage(
                content=b"",
                format=self.encode_format,
                width=meta["width"],
                height=meta["height"],
                original_width=meta["original_width"],
                original_height=meta["original_height"],
                original_format=self._seen.original_format or "unknown",
                original_bytes=self._seen.original_bytes or 0,
                sha256=self._seen.sha256 or "",
                jpeg_quality=self._seen.jpeg_quality,
            )
            self._outcomes[place] = Spooled(image, 0, len(img_str))

    return NotingWriter


def _in_order(tar: Path, keys: list[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of its tar, which come as they finished, in the order of `keys`."""
    if not keys:
        return
    with tarfile.open(tar, "r:") as opened:
        places: dict[str, list[tarfile.TarInfo]] = {}
        for member in opened:
            places.setdefault(member.name.partition(".")[0], []).append(member)
        for key in keys:
            yield (
                key,
                {
                    member.name.partition(".")[2]: file.read()
                    for member in places[key]
                    if (file := opened.extractfile(member)) is not None
                },
            )


# ---- where its requests may go ------------------------------------------------------------------


@contextmanager
def _guarded_urlopen(settings: DownloadSettings) -> Iterator[None]:
    """urllib, which img2dataset fetches with, for http and https and checked addresses only.

    Its default opener reads file:// and ftp:// too, and follows redirects to anywhere.
    """
    resolver = Resolver(lookup, settings.allow_private_addresses)
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        _GuardedHandler(resolver),
    ):
        opener.add_handler(handler)
    urllib.request.install_opener(opener)
    try:
        yield
    finally:
        urllib.request.install_opener(None)  # type: ignore[arg-type]


class _Guarded(http.client.HTTPConnection):
    """A connection to an address that was checked, and not to what the name says a moment later."""

    def __init__(self, *args: Any, resolver: Resolver, **options: Any) -> None:
        super().__init__(*args, **options)
        self._resolver = resolver

    def connect(self) -> None:
        deadline = Deadline(float(self.timeout or 0), float(self.timeout or 0))
        addresses = self._resolver.allowed_addresses(self.host, self.port, deadline)
        self.sock = connect_any(addresses, self.port, deadline)


class _GuardedTls(_Guarded):
    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        super().connect()
        context = ssl.create_default_context()
        self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


class _GuardedHandler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens http and https; `HTTPSHandler` brings the names that urllib looks for."""

    def __init__(self, resolver: Resolver) -> None:
        super().__init__()
        self._resolver = resolver

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Guarded, resolver=self._resolver), req)  # type: ignore[arg-type]

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_GuardedTls, resolver=self._resolver), req)  # type: ignore[arg-type]
