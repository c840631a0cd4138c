"""The page beside its clock: seconds to the first picture, and how long a question takes.

`caplab view` runs as a user starts it, and is asked over HTTP what its page asks. The first picture
is the first thumbnail of the page "Pictures": start, imports, the copy of the tables and the order
included; a second start finds the copy and the thumbnails. Questions differ from one another, so
that no answer is one of before. No peer does the same, so there are no ratios.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil

from curate.base.errors import CaplabError
from curate.search.index import PictureIndex, open_index
from curate.store.dataset import Dataset
from pipelines.bench.common.children import tied
from pipelines.bench.common.figures import Figure, Figures
from pipelines.bench.common.processes import CAPLAB

_RULE = "clip_similarity >= {} and aesthetic >= 5 and nsfw < 0.5"
_COLUMNS = ("aesthetic", "clip_similarity", "blur", "text_words", "original_bytes", "nsfw")


def page_figures(dataset: Dataset, questions: int, prefix: str) -> list[Figure]:
    """Start the page twice and ask it; the index of the search is built before.

    Args:
        questions: of each kind; of orders as many as there are columns to sort by, at most.
    """
    figures = Figures(prefix)
    shutil.rmtree(dataset.directory / "view", ignore_errors=True)
    index = open_index(dataset)
    for start in ("first_start", "second_start"):
        with _Page.started(dataset) as page:
            figures.add(f"{start}/first_picture", page.first_picture(), "s")
            if start == "first_start":
                continue
            for name, calls in _asked(page, index, questions).items():
                calls[0]()  # what is opened once is no question's
                figures.add(f"{name}/median", float(np.median(list(map(_timed, calls)))), "ms")
            figures.add("memory", page.memory >> 20, "MiB")
    return figures


def _asked(page: _Page, index: PictureIndex, count: int) -> dict[str, list[Callable[[], Any]]]:
    """Kind of question -> `count` different ones."""
    random, order = np.random.default_rng(0), page.order
    starts = random.integers(0, page.get("/api/about")["stored"], count)
    cuts = [_RULE.format(round(cut, 4)) for cut in random.uniform(0.1, 0.3, count)]
    keys = index.vectors.keys(np.sort(random.choice(len(index), count, replace=False)))
    get = page.get
    return {
        "rule": [partial(get, "/api/rule", where=rule) for rule in cuts],
        "order": [partial(get, "/api/order", sort=name, down=1) for name in _COLUMNS[:count]],
        "window": [
            partial(get, "/api/window", order=order, start=start, count=120) for start in starts
        ],
        "search": [partial(get, "/api/search", like=key) for key in keys],
        "search_in_rule": [
            partial(get, "/api/search", like=key, where=rule)
            for key, rule in zip(keys, cuts, strict=True)
        ],
    }


def _timed(call: Callable[[], Any]) -> float:
    """Milliseconds."""
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


class _Page:
    """A server that was started, and its address."""

    def __init__(self, process: subprocess.Popen[str], started: float) -> None:
        self._process, self._started = process, started
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            raise CaplabError(f"caplab view did not start: {line}{process.stdout.read()}")
        self._address = line[line.index("http://") :].split("/  ")[0]
        self.order = ""

    @classmethod
    @contextmanager
    def started(cls, dataset: Dataset) -> Iterator[_Page]:
        """`caplab view` on a free port, ended afterwards."""
        started = time.perf_counter()
        command = tied([*CAPLAB, "view", dataset.directory, "--port", "0"])
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                yield cls(process, started)
            finally:
                process.terminate()

    def first_picture(self) -> float:
        """Seconds from the start to the first thumbnail, asked for as the page does."""
        self._bytes("/")
        self.get("/api/about")
        self.order = self.get("/api/order")["order"]
        row = self.get("/api/window", order=self.order, start=0, count=120)["rows"][0]
        self._bytes(f"/thumbnail/{row['key']}?edge=160")
        return time.perf_counter() - self._started

    @property
    def memory(self) -> int:
        """Resident bytes of the server."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def get(self, path: str, **parameters: object) -> Any:
        """The value of a GET, once the server waits for nothing."""
        place = f"{path}?{urlencode(parameters)}" if parameters else path
        while True:
            value = json.loads(self._bytes(place))
            if "waiting" not in value:
                return value
            time.sleep(0.05)

    def _bytes(self, place: str) -> bytes:
        with urllib.request.urlopen(self._address + place, timeout=300) as answer:
            content: bytes = answer.read()
        return content
