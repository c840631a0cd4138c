"""`caplab bench caption --part http`: how much of a server's speed our client passes on.

A server of our own in another process (pipelines.bench.slow_captioner) answers every request after
a fixed delay, so with F requests in flight no client gets more than F / delay captions a second.

    stored         pictures that already have the asked size and format: sent by their header alone
    resized        pictures that have to be decoded, shrunk and encoded on the way
    engine         HttpEngine on the pictures of a dataset, read from its shards within the time
    stage          CaptionStage: gates, checkpoints and captions table as well, on the same cores
    bare client    ready-made requests on raw connections (pipelines.bench.bare_client)
    Ray            HttpRequestProcessor of ray.data.llm on ready-made requests, a worker a core

`resizing alone` is decoding, shrinking and encoding on all cores without any request: the resized
engine cannot pass it. Every figure is the best of a few rounds, ours and the limits alike.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.base.errors import CaplabError, ConfigError
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from pipelines.bench.bare_client import bare_rate
from pipelines.bench.caption_pictures import pack_pictures
from pipelines.bench.figures import Figure
from pipelines.bench.processes import run_measured
from pipelines.bench.slow_captioner import CAPTION, SlowCaptioner, slow_captioner
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage
from recaption.engines.http.address import Server
from recaption.engines.http.body import ChatBodies
from recaption.engines.http.engine import HttpEngine
from recaption.engines.pictures import for_sending, size_as_it_is
from recaption.engines.protocol import CaptionRequest, Sampling

_GOAL = 0.9
_PROMPT = "Describe this image in one paragraph: the subject, its surroundings, its colours."
_SAMPLING = Sampling(max_new_tokens=200)
_KIND = "descriptive"
_RAY_MINUTES = 15

Say = Callable[[str], Any]


@dataclass(frozen=True)
class HttpRun:
    """What is measured."""

    delay: float = 0.1
    """Seconds after which the server answers."""
    in_flight: int = 64
    requests: int = 3200
    resized_requests: int = 800
    image_size: int = 512
    """Pixels of the longest side, as pictures are stored."""
    resized_to: int = 384
    rounds: int = 3
    ray_requests: int = 320
    """One at a time takes long, so the peer gets fewer; 0 leaves it out."""

    @property
    def ideal(self) -> float:
        """Captions a second that no client can pass."""
        return self.in_flight / self.delay


def http_figures(
    folders: Sequence[Path], limit: int, out: Path | None, run: HttpRun, say: Say = print
) -> list[Figure]:
    """Speeds of the HTTP engine as shares of the ideal, its CPU, its limits and Ray's processor.

    Args:
        folders, limit: as `pack_pictures`; pictures repeat until there are enough requests.

    Raises:
        ConfigError: a picture cannot be sent as it is stored.
        CaplabError: a caption is missing or wrong.
    """
    work = (out or Path(tempfile.mkdtemp(prefix="caplab-bench-http-"))).absolute()
    say(f"packing pictures into {work}")
    dataset = pack_pictures(folders, limit, work / "pictures")
    stored = _read(dataset)
    if not all(size_as_it_is(image, run.image_size, "jpeg") for image in stored):
        raise ConfigError(f"Not all pictures are RGB JPEGs of at most {run.image_size} px.")
    pictures = _repeated(stored, run.requests)
    bodies = _bodies(pictures)
    ideal = f"{run.in_flight} / {1000 * run.delay:g} ms"
    figures = _server_limits(bodies, run, ideal, say)
    with slow_captioner(run.delay) as server:
        figures += _engine(server, dataset, run, ideal, say)
        say("stage")
        figures.append(_stage(server, dataset, run, ideal))
    if run.ray_requests:
        say("Ray's processor")
        rate = next(f.value for f in figures if f.name.endswith("second/engine/stored"))
        figures.append(_ray(bodies[: run.ray_requests], work, run.delay, rate))
    mean = sum(map(len, pictures)) / len(pictures)
    return [*figures, Figure("caption/http/bytes_per_picture", mean / 1000, "kB")]


def _bodies(pictures: Sequence[bytes]) -> list[bytes]:
    server = Server("http://127.0.0.1/v1", "slow-captioner")
    made = ChatBodies(server, _request(pictures), "jpeg")
    return [made.body(row, picture) for row, picture in enumerate(pictures)]


def _request(pictures: Sequence[bytes]) -> CaptionRequest:
    count = len(pictures)
    return CaptionRequest(pictures, [_PROMPT] * count, [0] * count, _SAMPLING)


def _repeated(pictures: Sequence[bytes], count: int) -> list[bytes]:
    return [pictures[row % len(pictures)] for row in range(count)]


def _server_limits(bodies: Sequence[bytes], run: HttpRun, ideal: str, say: Say) -> list[Figure]:
    say("bare client")
    with slow_captioner(0.0) as server:
        ceiling = max(bare_rate(server.port, bodies, run.in_flight) for _ in range(run.rounds))
    with slow_captioner(run.delay) as server:
        bare = max(bare_rate(server.port, bodies, run.in_flight) for _ in range(run.rounds))
    name = "caption/http"
    return [
        Figure(f"{name}/server_ceiling_without_delay", ceiling, "1/s"),
        Figure(f"{name}/captions_per_second/bare_client", bare, "1/s", ideal, run.ideal),
    ]


def _engine(
    server: SlowCaptioner, dataset: Dataset, run: HttpRun, ideal: str, say: Say
) -> list[Figure]:
    say("engine, stored")
    rounds = range(run.rounds)
    stored = max(_round(server, dataset, run.image_size, run.requests, run) for _ in rounds)
    say("engine, resized")
    side, count = run.resized_to, run.resized_requests
    resized = max(_round(server, dataset, side, count, run) for _ in rounds)
    say("resizing alone")
    pictures = _repeated(_read(dataset), count)
    alone = max(_resizing(pictures, side) for _ in rounds)
    label = f"resizing alone, {os.cpu_count()} cores"
    name = "caption/http/captions_per_second/engine"
    return [
        Figure(f"{name}/stored", stored.rate, "1/s", ideal, run.ideal, _GOAL, "higher"),
        Figure(f"{name}/resized", resized.rate, "1/s", ideal, run.ideal),
        Figure(f"{name}/resized/of_the_limit", resized.rate, "1/s", label, alone),
        Figure("caption/http/cpu_per_caption/engine/stored", stored.cpu, "CPU-ms"),
        Figure("caption/http/cpu_per_caption/engine/resized", resized.cpu, "CPU-ms"),
        Figure("caption/http/cpu_per_caption/server", stored.server_cpu, "CPU-ms"),
    ]


@dataclass(frozen=True, order=True)
class _Speed:
    """One round: captions a second; CPU milliseconds a caption of this process and the server."""

    rate: float
    cpu: float
    server_cpu: float


def _round(server: SlowCaptioner, dataset: Dataset, side: int, count: int, run: HttpRun) -> _Speed:
    place = Server(server.base_url, "slow-captioner")
    engine = HttpEngine(place, in_flight=run.in_flight, image_size=side)
    engine.caption(_request(_repeated(_read(dataset), 2 * run.in_flight)))  # opens connections
    cpu, theirs, started = time.process_time(), server.work().cpu_seconds, time.perf_counter()
    outcomes = engine.caption(_request(_repeated(_read(dataset), count)))
    seconds = time.perf_counter() - started
    cpu, theirs = time.process_time() - cpu, server.work().cpu_seconds - theirs
    engine.close()
    if any(outcome.text != CAPTION for outcome in outcomes):
        raise CaplabError("The engine lost captions of a server that gives one to everybody.")
    each = 1000 / count
    return _Speed(count / seconds, cpu * each, theirs * each)


def _read(dataset: Dataset) -> list[bytes]:
    return [image for shard in dataset.shards() for _, image, _ in iter_shard(dataset, shard)]


def _resizing(pictures: Sequence[bytes], side: int) -> float:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        started = time.perf_counter()
        for _ in pool.map(lambda picture: for_sending(picture, side, "jpeg"), pictures):
            pass
        return len(pictures) / (time.perf_counter() - started)


def _stage(server: SlowCaptioner, dataset: Dataset, run: HttpRun, ideal: str) -> Figure:
    samples = -(-run.requests // dataset_rows(dataset))
    stage = CaptionStage(
        RecaptionSettings(
            captioner=server.base_url,
            kinds=(_KIND,),
            in_flight=run.in_flight,
            image_size=run.image_size,
            samples_per_image=min(100, samples),
            temperature=0.7,  # several captions of one picture need one
            t5_tokenizer="",  # counts what nobody asks for here, and may not be at hand
            clip_gate="off",
        )
    )
    stage.open()
    started = time.perf_counter()
    for shard in dataset.shards():
        stage.run(dataset, shard)
    seconds = time.perf_counter() - started
    tables = [dataset.read_table("captions", shard, stage.source) for shard in dataset.shards()]
    captions = pa.concat_tables(tables)
    if pc.sum(pc.equal(captions.column("text"), CAPTION)).as_py() != captions.num_rows:
        raise CaplabError("The stage lost captions of a server that gives one to everybody.")
    return Figure(
        "caption/http/captions_per_second/stage",
        captions.num_rows / seconds,
        "1/s",
        ideal,
        run.ideal,
    )


def dataset_rows(dataset: Dataset) -> int:
    """Stored samples."""
    shards = (dataset.read_table("samples", s, columns=["key"]) for s in dataset.shards())
    return sum(table.num_rows for table in shards)


def _ray(bodies: Sequence[bytes], work: Path, delay: float, rate: float) -> Figure:
    path = work / "bodies.parquet"
    pq.write_table(pa.table({"body": [body.decode() for body in bodies]}), path)
    workers = os.cpu_count() or 1
    with slow_captioner(delay) as server:
        command = [sys.executable, "-m", "pipelines.bench.ray_http", server.base_url, path, workers]
        run_measured([str(part) for part in command], timeout=60 * _RAY_MINUTES)
        done = server.work()
    label = f"ray.data.llm {metadata.version('ray')}, {workers} workers"
    theirs = (done.answers - 1) / done.seconds
    return Figure("caption/http/captions_per_second/against_ray", rate, "1/s", label, theirs)
