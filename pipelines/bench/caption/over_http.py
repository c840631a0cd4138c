"""`caplab bench caption --part http`: how much of a server's speed our client passes on.

A server of our own in another process (pipelines.bench.common.loopback) answers every request after
a fixed delay, so with F requests in flight no client gets more than F / delay captions a second.

    stored         pictures that already have the asked size and format: sent by their header alone
    resized        pictures that have to be decoded, shrunk and encoded on the way
    engine         HttpEngine on the pictures of a dataset, read from its shards within the time
    stage          CaptionStage: gates, checkpoints and captions table as well, on the same cores
    bare client    ready-made requests on raw connections
    Ray            HttpRequestProcessor of ray.data.llm on ready-made requests, a worker a core

`resizing alone` is decoding, shrinking and encoding on all cores without any request: the resized
engine cannot pass it. Every figure is the best of a few rounds, ours and the limits alike.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import CaplabError, ConfigError
from curate.base.progress import tell
from curate.served.address import Server
from curate.store.dataset import Dataset
from pipelines.bench.common.figures import Figures, work_folder
from pipelines.bench.common.loopback import CAPTION, MODEL, bare_rate, slow_captioner, work
from pipelines.bench.common.packed_pictures import pack_pictures, pictures_of, repeated
from pipelines.bench.common.processes import run_measured
from recaption.captioning.settings import RecaptionSettings
from recaption.captioning.stage import CaptionStage
from recaption.engines.http.body import ChatBodies
from recaption.engines.http.engine import HttpEngine
from recaption.engines.pictures import for_sending, size_as_it_is
from recaption.engines.protocol import CaptionRequest, Sampling

_GOAL = 0.9
_PROMPT = "Describe this image in one paragraph: the subject, its surroundings, its colours."
_RAY_MINUTES = 15
_RAY = """
import json, sys
import pyarrow.parquet as pq
import ray
from ray.data.llm import HttpRequestProcessorConfig, build_processor
url, bodies, workers = sys.argv[1], pq.read_table(sys.argv[2]), int(sys.argv[3])
# Workers wait more than they compute; a CPU each and two for Ray's own tasks, or nothing moves.
ray.init(num_cpus=workers + 2, include_dashboard=False, logging_level="error",
         configure_logging=False)
ray.data.DataContext.get_current().enable_progress_bars = False
batch = 16  # rows of a batch are one request after another
processor = build_processor(
    HttpRequestProcessorConfig(url=url, batch_size=batch, concurrency=workers),
    preprocess=lambda row: {"payload": json.loads(row["body"])},
    postprocess=lambda row: {
        "caption": row["http_response"]["choices"][0]["message"]["content"]
    },
)
# A block each batch, or one worker would get all of them.
blocks = [bodies.slice(start, batch) for start in range(0, bodies.num_rows, batch)]
captions = [row["caption"] for row in processor(ray.data.from_arrow(blocks)).take_all()]
assert len(captions) == bodies.num_rows and all(captions)
"""


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


def http_figures(folders: Sequence[Path], limit: int, out: Path | None, run: HttpRun) -> Figures:
    """Speeds of the HTTP engine as shares of the ideal, its CPU, its limits and Ray's processor.

    Args:
        folders, limit: as `pack_pictures`; pictures repeat until there are enough requests.

    Raises:
        ConfigError: a picture cannot be sent as it is stored.
        CaplabError: a caption is missing or wrong.
    """
    folder = work_folder(out)
    tell(f"packing pictures into {folder}")
    dataset = pack_pictures(folders, limit, folder / "pictures")
    stored = pictures_of(dataset)
    if not all(size_as_it_is(image, run.image_size, "jpeg") for image in stored):
        raise ConfigError(f"Not all pictures are RGB JPEGs of at most {run.image_size} px.")
    pictures = repeated(stored, run.requests)
    made = ChatBodies(Server("http://127.0.0.1/v1", MODEL), _request(pictures), "jpeg")
    bodies = [made.body(row, picture) for row, picture in enumerate(pictures)]
    rounds = range(run.rounds)
    ideal = (f"{run.in_flight} / {1000 * run.delay:g} ms", run.ideal)
    figures = Figures("caption/http")
    speed, cpu = "captions_per_second", "cpu_per_caption"
    tell("bare client")
    with slow_captioner(0.0) as port:
        ceiling = max(bare_rate(port, bodies, run.in_flight) for _ in rounds)
    figures.add("server_ceiling_without_delay", ceiling, "1/s")
    with slow_captioner(run.delay) as port:
        bare = max(bare_rate(port, bodies, run.in_flight) for _ in rounds)
        figures.add(f"{speed}/bare_client", bare, "1/s", ideal)
        tell("engine, stored")
        best = max(_round(port, dataset, run.image_size, run.requests, run) for _ in rounds)
        tell("engine, resized")
        side, count = run.resized_to, run.resized_requests
        resized = max(_round(port, dataset, side, count, run) for _ in rounds)
        tell("resizing alone")
        alone = max(_resizing(repeated(stored, count), side) for _ in rounds)
        tell("stage")
        stage = _stage(port, dataset, run)
    figures.add(f"{speed}/engine/stored", best.rate, "1/s", ideal, at_least=_GOAL)
    figures.add(f"{speed}/engine/resized", resized.rate, "1/s", ideal)
    limit_of = (f"resizing alone, {os.cpu_count()} cores", alone)
    figures.add(f"{speed}/engine/resized/of_the_limit", resized.rate, "1/s", limit_of)
    figures.add(f"{cpu}/engine/stored", best.cpu, "CPU-ms")
    figures.add(f"{cpu}/engine/resized", resized.cpu, "CPU-ms")
    figures.add(f"{cpu}/server", best.server_cpu, "CPU-ms")
    figures.add(f"{speed}/stage", stage, "1/s", ideal)
    if run.ray_requests:
        tell("Ray's processor")
        beside = _ray(bodies[: run.ray_requests], folder, run.delay)
        figures.add(f"{speed}/against_ray", best.rate, "1/s", beside)
    mean = sum(map(len, pictures)) / len(pictures)
    figures.add("bytes_per_picture", mean / 1000, "kB")
    return figures


def _request(pictures: Sequence[bytes]) -> CaptionRequest:
    count = len(pictures)
    return CaptionRequest(pictures, [_PROMPT] * count, [0] * count, Sampling(max_new_tokens=200))


class _Speed(NamedTuple):
    """One round: captions a second; CPU milliseconds a caption of this process and the server."""

    rate: float
    cpu: float
    server_cpu: float


def _round(port: int, dataset: Dataset, side: int, count: int, run: HttpRun) -> _Speed:
    place = Server(f"http://127.0.0.1:{port}/v1", MODEL)
    engine = HttpEngine(place, in_flight=run.in_flight, image_size=side)
    opening = repeated(pictures_of(dataset), 2 * run.in_flight)
    engine.caption(_request(opening))  # opens the connections
    cpu, theirs, started = time.process_time(), work(port).cpu_seconds, time.perf_counter()
    outcomes = engine.caption(_request(repeated(pictures_of(dataset), count)))
    seconds = time.perf_counter() - started
    cpu, theirs = time.process_time() - cpu, work(port).cpu_seconds - theirs
    engine.close()
    if any(outcome.text != CAPTION for outcome in outcomes):
        raise CaplabError("The engine lost captions of a server that gives one to everybody.")
    return _Speed(count / seconds, 1000 * cpu / count, 1000 * theirs / count)


def _resizing(pictures: Sequence[bytes], side: int) -> float:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        started = time.perf_counter()
        for _ in pool.map(lambda picture: for_sending(picture, side, "jpeg"), pictures):
            pass
        return len(pictures) / (time.perf_counter() - started)


def _stage(port: int, dataset: Dataset, run: HttpRun) -> float:
    """Captions a second of the whole stage."""
    pictures = sum(dataset.read_table("samples", s).num_rows for s in dataset.shards())
    stage = CaptionStage(
        RecaptionSettings(
            captioner=f"http://127.0.0.1:{port}/v1",
            kinds=("descriptive",),
            in_flight=run.in_flight,
            image_size=run.image_size,
            samples_per_image=min(100, -(-run.requests // pictures)),
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
    texts = pa.concat_tables(tables).column("text").to_pylist()
    if any(text != CAPTION for text in texts):
        raise CaplabError("The stage lost captions of a server that gives one to everybody.")
    return len(texts) / seconds


def _ray(bodies: Sequence[bytes], folder: Path, delay: float) -> tuple[str, float]:
    """Captions a second as the server saw them, so that the start of Ray counts for nothing."""
    path, workers = folder / "bodies.parquet", os.cpu_count() or 1
    pq.write_table(pa.table({"body": [body.decode() for body in bodies]}), path)
    with slow_captioner(delay) as port:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        run_measured([sys.executable, "-c", _RAY, url, path, workers], timeout=60 * _RAY_MINUTES)
        done = work(port)
    label = f"ray.data.llm {metadata.version('ray')}, {workers} workers"
    return label, (done.answers - 1) / done.seconds
