"""Search of the page: by text, by a stored picture, by a picture that is dropped on it.

The index is opened, and CLIP loaded, at the first search, in a thread of its own and once: a
question that has to wait for either is answered with what it waits for, and asked again by the
page. A stored picture, and a text that was asked for before, need no model.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from pipelines.view.answers import Asked, get, post
from pipelines.view.opened import Opened
from pipelines.view.rows import rows_of_keys
from pipelines.view.rule_previews import SECONDS
from pipelines.view.tables import files_mark

if TYPE_CHECKING:
    from curate.duplicates.candidates.vectors import Floats
    from curate.search.clip_query import ClipQuery
    from curate.search.search import Searcher

COUNT, MOST = 60, 1000
"""Pictures that a search gives: by default, and at most."""
_PATIENCE = 0.5
"""Seconds that a question waits for the index or the model before it is told so."""


def routes(opened: Opened) -> list[Route]:
    """GET and POST /api/search, GET /api/search/models."""
    if opened.dataset is None:
        return []
    kept = _Kept(opened, opened.dataset)

    def models(asked: Asked) -> dict[str, Any]:
        """Labels of the CLIP models; with `load` the one of `clip` is loaded."""
        from curate.search.index import labels

        try:
            if asked.flag("load"):
                kept.load(kept.searcher(asked.text("clip") or None))
        except _WaitingError as waiting:
            return {"waiting": str(waiting)}
        return {"labels": [label or "" for label in labels(kept.dataset)]}

    def by_word(asked: Asked) -> dict[str, Any]:
        from curate.search.search import words_unread

        text, key = asked.text("text"), asked.text("like")
        if bool(text) == bool(key):
            raise ConfigError("Search for a text or for pictures like one.")
        count = asked.whole("count", COUNT, 1, MOST)
        try:
            searcher = kept.searcher(asked.text("clip") or None)
            if text and not searcher.model.knows(text):
                kept.load(searcher)
        except _WaitingError as waiting:
            return {"waiting": str(waiting)}
        query, unread = (searcher.of(key), 0) if key else searcher.model.text(text)
        told = words_unread(unread)
        return {**found(searcher, query, count, asked, key or None), "note": told}

    def by_picture(body: dict[str, Any]) -> dict[str, Any]:
        raw = _picture(body.get("picture"))
        try:
            searcher = kept.searcher(_text(body, "clip") or None)
            kept.load(searcher)
        except _WaitingError as waiting:
            return {"waiting": str(waiting)}
        return found(searcher, searcher.model.picture(raw), COUNT, body, None)

    def found(
        searcher: Searcher, query: Floats, count: int, asked: Mapping[str, Any], key: str | None
    ) -> dict[str, Any]:
        where, selection = _text(asked, "where") or "true", _text(asked, "selection") or None
        ranked = searcher.ranked(query, count, where, selection, key)
        told = {hit: (similarity, copy_of) for hit, similarity, copy_of in ranked.hits()}
        rows = rows_of_keys(opened, ranked.keys, [])
        for row in rows:
            similarity, row["copy_of"] = told[row["key"]]
            row["values"]["similarity"] = similarity
        return {"rows": rows, "among": ranked.among}

    return [
        get("/api/search", by_word),
        post("/api/search", by_picture),
        get("/api/search/models", models),
    ]


class _WaitingError(Exception):
    """What a question has to wait for, in words."""


class _Kept:
    """Searchers by label, each opened once and again when the embeddings changed.

    A model that was loaded stays, unless the pictures were embedded by another one meanwhile.
    """

    def __init__(self, opened: Opened, dataset: Dataset) -> None:
        self.dataset = dataset
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._begun: dict[tuple[str, str | None], tuple[str, Future[Any]]] = {}
        self._models: dict[str | None, tuple[str | None, ClipQuery]] = {}
        self._lock = threading.Lock()
        opened.at_end(lambda: self._worker.shutdown(wait=False, cancel_futures=True))

    def searcher(self, label: str | None) -> Searcher:
        """The searcher of a CLIP model.

        Raises:
            _WaitingError: it is being opened.
        """
        searcher: Searcher = self._done(
            ("index", label),
            files_mark(self.dataset, ("embeddings",)),
            lambda: self._opened(label),
            "Opening the index of the pictures, which the first search builds",
        )
        return searcher

    def load(self, searcher: Searcher) -> None:
        """Have its CLIP loaded; raises _WaitingError while it is being loaded."""
        model = searcher.model
        if not model.is_loaded:
            words = f"Loading the CLIP model {model.model_name.rpartition('/')[2]}, once"
            self._done(("model", model.label), f"{id(model)}", model.load, words)

    def _opened(self, label: str | None) -> Searcher:
        from curate.search.index import column_mark
        from curate.search.search import Searcher

        made = Searcher(self.dataset, label, rule_seconds=SECONDS)
        signature = column_mark(self.dataset, label)
        known = self._models.get(label)
        if known is not None and known[0] == signature:
            made.model = known[1]
        self._models[label] = signature, made.model
        return made

    def _done(
        self, name: tuple[str, str | None], mark: str, work: Callable[[], Any], words: str
    ) -> Any:
        """What `work` gives, done once for a mark; what was of an earlier mark is forgotten."""
        with self._lock:
            if name not in self._begun or self._begun[name][0] != mark:
                self._begun[name] = mark, self._worker.submit(work)
            future = self._begun[name][1]
        try:
            return future.result(_PATIENCE)
        except TimeoutError:
            if future.done():
                raise
            raise _WaitingError(words) from None
        finally:
            if future.done() and future.exception() is not None:
                with self._lock:  # what was missing may be there the next time
                    if self._begun.get(name) == (mark, future):
                        del self._begun[name]


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name) or ""
    if not isinstance(value, str):
        raise ConfigError(f"{name} is no text.")
    return value


def _picture(encoded: Any) -> bytes:
    if not isinstance(encoded, str):
        raise ConfigError("picture is no base64.")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError("picture is no base64.") from error
