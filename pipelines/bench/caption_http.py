"""`caplab bench caption --part http`: how much of a server's speed our client passes on.

A server of our own in another process (pipelines.bench.slow_captioner) answers every request after
a fixed delay, so with F requests in flight no client gets more than F / delay captions a second.

    stored         pictures that already have the asked size and format: sent by their header alone
    resized        pictures that have to be decoded, shrunk and encoded on the way
    engine         HttpEngine on pictures in memory
    stage          CaptionStage: read the tar, ask, gates, checkpoints, captions table
    bare client    ready-made requests on raw connections (pipelines.bench.bare_client)
    Ray            HttpRequestProcessor of ray.data.llm on ready-made requests, a worker a core

`resizing alone` is decoding, shrinking and encoding on all cores without any request: the resized
engine cannot pass it.
"""

from __future__ import annotations

import json
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

from curate.dataset import Dataset
from curate.errors import CaplabError, ConfigError
from curate.shards import iter_shard
from pipelines.bench.bare_client import bare_rate
from pipelines.bench.caption_pictures import pack_pictures
from pipelines.bench.figures import Figure
from pipelines.bench.processes import run_measured
from pipelines.bench.slow_captioner import CAPTION, SlowCaptioner, slow_captioner
from recaption.caption import CaptionStage
from recaption.chat_body import ChatBodies
from recaption.engine import CaptionRequest, Sampling
from recaption.http_engine import HttpEngine
from recaption.pictures import for_sending, size_as_it_is
from recaption.server import Server
from recaption.settings import RecaptionSettings

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
    requests: int = 6400
    image_size: int = 512
    """Pixels of the longest side, as pictures are stored."""
    resized_to: int = 384
    ray_requests: int = 400
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
        ConfigError: no picture can be sent as it is stored.
        CaplabError: a caption is missing or wrong.
    """
    work = (out or Path(tempfile.mkdtemp(prefix="caplab-bench-http-"))).absolute()
    say(f"packing pictures into {work}")
    dataset = pack_pictures(folders, limit, work / "pictures")
    stored = [image for shard in dataset.shards() for _, image, _ in iter_shard(dataset, shard)]
    fitting = [image for image in stored if size_as_it_is(image, run.image_size, "jpeg")]
    if not fitting:
        raise ConfigError(f"No picture is a JPEG of at most {run.image_size} px.")
    pictures = [fitting[row % len(fitting)] for row in range(run.requests)]
    bodies = _bodies(pictures)
    ideal = f"{run.in_flight} / {1000 * run.delay:g} ms"
    figures = _server_limits(bodies, run, ideal, say)
    with slow_captioner(run.delay) as server:
        figures += _engine(server, pictures, run, ideal, say)
        say("stage")
        figures.append(_stage(server, dataset, run, ideal))
        if run.ray_requests:
            say("Ray's processor")
            rate = next(f.value for f in figures if f.name.endswith("engine/stored"))
            figures.append(_ray(server, bodies[: run.ray_requests], work, rate))
    mean = sum(map(len, pictures)) / len(pictures)
    return [*figures, Figure("caption/http/bytes_per_picture", mean / 1000, "kB")]


def _bodies(pictures: Sequence[bytes]) -> list[bytes]:
    server = Server("http://127.0.0.1/v1", "slow-captioner")
    made = ChatBodies(server, _request(pictures), "jpeg")
    return [made.body(row, picture) for row, picture in enumerate(pictures)]


def _request(pictures: Sequence[bytes]) -> CaptionRequest:
    count = len(pictures)
    return CaptionRequest(pictures, [_PROMPT] * count, [0] * count, _SAMPLING)


def _server_limits(bodies: Sequence[bytes], run: HttpRun, ideal: str, say: Say) -> list[Figure]:
    say("bare client")
    with slow_captioner(0.0) as server:
        ceiling = bare_rate(server.port, bodies, run.in_flight)
    with slow_captioner(run.delay) as server:
        bare = bare_rate(server.port, bodies, run.in_flight)
    name = "caption/http"
    return [
        Figure(f"{name}/server_ceiling_without_delay", ceiling, "1/s"),
        Figure(f"{name}/captions_per_second/bare_client", bare, "1/s", ideal, run.ideal),
    ]


def _engine(
    server: SlowCaptioner, pictures: Sequence[bytes], run: HttpRun, ideal: str, say: Say
) -> list[Figure]:
    name, figures = "caption/http", []
    place = Server(server.base_url, "slow-captioner")
    for how, side in (("stored", run.image_size), ("resized", run.resized_to)):
        say(f"engine, {how}")
        engine = HttpEngine(place, in_flight=run.in_flight, image_size=side)
        engine.caption(_request(pictures[: 2 * run.in_flight]))  # opens the connections
        request = _request(pictures)
        cpu, theirs, started = time.process_time(), server.cpu_seconds(), time.perf_counter()
        outcomes = engine.caption(request)
        rate = len(pictures) / (time.perf_counter() - started)
        cpu, theirs = time.process_time() - cpu, server.cpu_seconds() - theirs
        engine.close()
        if any(outcome.text != CAPTION for outcome in outcomes):
            raise CaplabError("The engine lost captions of a server that gives one to everybody.")
        goal = _GOAL if how == "stored" else None
        each = 1000 / len(pictures)
        figures += [
            Figure(
                f"{name}/captions_per_second/engine/{how}", rate, "1/s", ideal, run.ideal, goal,
                "higher",
            ),
            Figure(f"{name}/cpu_per_caption/engine/{how}", cpu * each, "CPU-ms"),
            Figure(f"{name}/cpu_per_caption/server/{how}", theirs * each, "CPU-ms"),
        ]  # fmt: skip
    say("resizing alone")
    alone = _resizing(pictures, run.resized_to)
    label = f"resizing alone, {os.cpu_count()} cores"
    resized = next(f.value for f in figures if f.name.endswith("second/engine/resized"))
    reached = Figure(
        f"{name}/captions_per_second/engine/resized/limit", resized, "1/s", label, alone
    )
    return [*figures, reached]


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
        "caption/http/captions_per_second/stage/stored", captions.num_rows / seconds, "1/s", ideal,
        run.ideal, _GOAL, "higher",
    )  # fmt: skip


def dataset_rows(dataset: Dataset) -> int:
    """Stored samples."""
    shards = (dataset.read_table("samples", s, columns=["key"]) for s in dataset.shards())
    return sum(table.num_rows for table in shards)


def _ray(server: SlowCaptioner, bodies: Sequence[bytes], work: Path, rate: float) -> Figure:
    path = work / "bodies.parquet"
    pq.write_table(pa.table({"body": [body.decode() for body in bodies]}), path)
    workers = os.cpu_count() or 1
    command = [sys.executable, "-m", "pipelines.bench.ray_http", server.base_url, path, workers]
    cost = run_measured([str(part) for part in command], timeout=60 * _RAY_MINUTES)
    seconds = {int(n): s for n, s in json.loads(cost.output.strip().splitlines()[-1]).items()}
    (few, short), (many, long) = sorted(seconds.items())
    theirs = (many - few) / (long - short)
    label = f"ray.data.llm {metadata.version('ray')}, {workers} workers"
    return Figure("caption/http/captions_per_second/against_ray", rate, "1/s", label, theirs)
