"""The download stage: a shard of URLs becomes a shard of pictures and a row for every URL."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.progress import advance
from curate.base.reasons import Failure, FailureError, Reason
from curate.download.hosts import Hosts
from curate.download.img2dataset_engine import Img2datasetStage
from curate.download.pool import Fetcher
from curate.download.robots import MOST_BYTES, RobotsTxt
from curate.download.safe_http import SafeClient
from curate.download.schedule import Job
from curate.download.settings import DownloadSettings
from curate.download.shared_urls import stored_elsewhere
from curate.download.urls import Target, parse_url
from curate.pictures.file_hashes import HASHES
from curate.pictures.hash_list import hash_list
from curate.pictures.resize import Resizer, StoredImage
from curate.store.dataset import Dataset
from curate.store.stage import Stage
from curate.store.write_samples import (
    Outcome,
    Spool,
    intake_failures,
    is_stored,
    open_spool,
    write_outcomes,
)

# Files that are decoded at once in a worker: decoding a large one takes much memory, and a worker
# has about one processor to do it with.
_DECODES_AT_A_TIME = 1


class DownloadStage(Stage):
    """Fetches one shard: writes `shards/SHARD.tar`, then the samples table, which says it is done.

    Every input row gets exactly one samples row. The same files behind the URLs give the same
    bytes. Cost grows with the number of URLs; memory with `threads` (each holds a file of at most
    max_bytes) and not with the shard, whose pictures wait in a temporary file for their turn.
    """

    name: ClassVar[str] = "download"
    adds: ClassVar[tuple[str, ...]] = ("samples",)

    def __init__(self, settings: DownloadSettings) -> None:
        """Nothing is fetched yet.

        Raises:
            ConfigError: a proxy that is none, or a hash list that cannot be read.
        """
        self.settings = settings
        hash_list(settings.hash_list, settings.hash_distance, settings.hash_turned)
        SafeClient(settings.http_limits())
        self._web: _Web | None = None

    def is_done(self, dataset: Dataset, shard: str) -> bool:
        """Whether the shard's samples table and its tar are there and whole."""
        return is_stored(dataset, shard)

    def open(self) -> None:
        """Make what a worker keeps for all its shards: connections and the hosts' accounts."""
        # What Pillow warns of (odd tags, large sizes) the resizer decides on itself.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        client = SafeClient(self.settings.http_limits())
        # X-Robots-Tag says how a page may be used, not whether rules may be read.
        plain = client.variant(disallowed_directives=frozenset(), max_bytes=MOST_BYTES)
        robots = None
        if self.settings.respect_robots_txt:
            robots = RobotsTxt(lambda url: plain.fetch(url).content, client.limits.agent_token)
        self._web = _Web(client, Hosts(self.settings.host_limits()), robots)

    def run(self, dataset: Dataset, shard: str) -> dict[str, int]:
        """Fetch a shard; returns stored and each reason with its number of rows."""
        rows = pq.read_table(dataset.input_path(shard))
        with open_spool(dataset, shard) as spool:
            outcomes = self._copied(dataset, shard, rows, spool)
            left = [n for n in range(rows.num_rows) if n not in outcomes]
            outcomes |= self.fetch(rows, spool, left)
            return write_outcomes(
                dataset, shard, rows, [outcomes[n] for n in range(rows.num_rows)], spool
            )

    def fetch(
        self, rows: pa.Table, spool: Spool, positions: Collection[int] | None = None
    ) -> dict[int, Outcome]:
        """What became of each row, by position; the pictures' bytes go to `spool`.

        Rows of one URL are one request, and share what came of it.

        Args:
            rows: of the input, with the columns key and url, and perhaps md5, sha256 or sha512.
            positions: rows to fetch; by default all.
        """
        if self._web is None:
            self.open()
        assert self._web is not None
        wanted = range(rows.num_rows) if positions is None else sorted(positions)
        broken = intake_failures(rows)
        outcomes: dict[int, Outcome] = {n: broken[n] for n in wanted if n in broken}
        alike: dict[Target, list[int]] = {}
        keys, urls = rows.column("key").to_pylist(), rows.column("url").to_pylist()
        for position in wanted:
            if position in outcomes:
                continue
            target = _target(urls[position])
            if isinstance(target, Failure):
                outcomes[position] = target
            else:
                alike.setdefault(target, []).append(position)
        jobs = [Job(some[0], keys[some[0]], target) for target, some in alike.items()]
        groups = {some[0]: some for some in alike.values()}
        fetcher = Fetcher(
            self._web.client,
            self._web.hosts,
            self._web.robots,
            self.settings.retries,
            self.settings.threads,
            _Finisher(self.settings, rows, groups),
        )
        for first, found in fetcher.outcomes(jobs):
            group = groups.pop(first)
            results = [(group, found)] if isinstance(found, Failure) else found
            for positions_alike, result in results:
                outcome = result if isinstance(result, Failure) else spool.add(result)
                outcomes |= dict.fromkeys(positions_alike, outcome)
            advance(len(group))
        return outcomes

    def _copied(
        self, dataset: Dataset, shard: str, rows: pa.Table, spool: Spool
    ) -> dict[int, Outcome]:
        """By position, the rows whose URL another shard has stored by now."""
        if self.settings.hash_list:  # of what is stored nobody knows whether it is on this list
            return {}
        broken = intake_failures(rows)
        keys, urls = rows.column("key").to_pylist(), rows.column("url").to_pylist()
        hashes = _hashes(self.settings, rows)
        asked = {
            keys[n]: (urls[n], {name: values[n] for name, values in hashes.items()})
            for n in range(rows.num_rows)
            if n not in broken and urls[n] is not None
        }
        positions = {key: n for n, key in enumerate(keys)}
        outcomes: dict[int, Outcome] = {}
        for alike, image in stored_elsewhere(dataset, shard, asked):
            outcomes |= dict.fromkeys((positions[key] for key in alike), spool.add(image))
            advance(len(alike))
        return outcomes

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": self.settings, "_web": None}


def download_stage(settings: DownloadSettings) -> Stage:
    """The stage of the engine that the settings name."""
    stages: dict[str, type[Stage]] = {"caplab": DownloadStage, "img2dataset": Img2datasetStage}
    return stages[settings.engine](settings)  # type: ignore[call-arg]


@dataclass(frozen=True)
class _Web:
    """What a worker knows of the web, for the length of its run."""

    client: SafeClient
    hosts: Hosts
    robots: RobotsTxt | None


_Results = list[tuple[list[int], StoredImage | Failure]]
"""What the rows of one URL came to: together, unless the list expects different files of it."""


class _Finisher:
    """From a fetched file to what its rows store; called by many threads."""

    def __init__(
        self, settings: DownloadSettings, rows: pa.Table, groups: Mapping[int, Sequence[int]]
    ) -> None:
        """`groups`: position of a job -> those of all rows that ask for its URL."""
        self._groups = groups
        self._resizer = Resizer(settings)
        self._decodes = threading.BoundedSemaphore(_DECODES_AT_A_TIME)
        self._hashes = _hashes(settings, rows)

    def __call__(self, job: Job, content: bytes) -> _Results:
        by_hashes: dict[tuple[Any, ...], list[int]] = {}
        for position in self._groups[job.position]:
            hashes = tuple(values[position] for values in self._hashes.values())
            by_hashes.setdefault(hashes, []).append(position)
        with self._decodes:
            return [
                (some, self._resizer.outcome(content, dict(zip(self._hashes, hashes, strict=True))))
                for hashes, some in by_hashes.items()
            ]


def _hashes(settings: DownloadSettings, rows: pa.Table) -> dict[str, list[str | None]]:
    """Name of a hash -> what the list expects of each row's file."""
    return {
        name: rows.column(name).to_pylist()
        for name in HASHES
        if settings.verify_hashes and name in rows.column_names
    }


def _target(url: str | None) -> Target | Failure:
    """Where a row's picture lies, or why its URL need not even be tried."""
    if url is None or not url.strip():
        return Failure(Reason.NO_URL)
    try:
        return parse_url(url)
    except FailureError as error:
        return replace(error.failure)
