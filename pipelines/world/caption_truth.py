"""Captions of the synthetic web against its scenes: what `facts` reads, held against what is drawn.

    object       named shapes; a second red ring needs a second ring in the picture
    attribute    colour and size, bound to their object
    relation     the place of an object, said by name or by its relation to another
    count        the number of shapes, where a caption says one
    background   its colour and its style
    whole        objects right in colour, shape and place at once
    main         the main object, right in colour and shape: all that a short caption should say

Structured captions are read as their prose, and a text that is padded by repeating it is read once.

"whole" and "main" are the lines of the demo's table; a short caption names one object by design, so
its recall is that of "main".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from curate.store.scans import parquet_scan
from pipelines.world.facts import Facts, ObjectFact, facts, scene_facts, score_captions
from pipelines.world.scene import Scene
from recaption.judging.truth import Tally, TruthCounts
from recaption.structured.prose import prose
from recaption.structured.schema import Unread, parse

Row = tuple[float, float, float, float]


class WorldTruth:
    """The scenes of the samples; see recaption.judging.truth.Truth."""

    def __init__(self, scenes: dict[str, Scene], name: str = "the synthetic web") -> None:
        """Take the scene of each sample key."""
        self.scenes, self.name = scenes, name
        self.notes = (f"The scenes of {len(scenes):,} stored samples are known.",)

    def keys(self) -> pa.Array:
        return pa.array(sorted(self.scenes), pa.string())

    def judge(self, keys: Sequence[str], texts: Sequence[str]) -> TruthCounts:
        texts = [_plain(text) for text in texts]
        scenes = [self.scenes[key] for key in keys]
        rows: dict[str, list[Row]] = {}
        mentions, hallucinated = [], []
        for text, scene in zip(texts, scenes, strict=True):
            said = facts(text, scene.grid)
            found = compare(said, scene)
            for kind, row in found.items():
                rows.setdefault(kind, []).append(row)
            stated, right, *_ = found["object"]
            mentions.append(stated)
            hallucinated.append(stated - right)
        tallies = {kind: Tally.of(found) for kind, found in rows.items()}
        scored = score_captions(texts, scenes)
        hits = scored["hits"]
        tallies["whole"] = Tally(scored["stated"], hits, scored["expected"], hits)
        tallies["main"] = _main(texts, scenes, scored["stated"])
        return TruthCounts(tallies, np.array(mentions, float), np.array(hallucinated, float))


def _plain(text: str) -> str:
    """What a derived caption says, in words that `facts` reads."""
    if text.startswith("{"):
        caption = parse(text)
        return text if isinstance(caption, Unread) else prose(caption)
    words = text.split()
    for period in range(1, len(words) // 2 + 1):
        if words[period:] == words[:-period]:
            return " ".join(words[:period])
    return text


def compare(said: Facts, scene: Scene) -> dict[str, Row]:
    """(stated, right, there, found) of the statements that are not about a whole object.

    A stated shape speaks of one true object of that shape: of the pairings, the one in which most
    of what is said is right. Words without a shape ("red clip art") state no object.
    """
    truth = scene_facts(scene)
    named = [thing for thing in said.objects if thing.shape is not None]
    pairs = _paired(named, truth.objects)
    agree = [(one, truth.objects[place]) for one, place in pairs]
    stated_attributes = sum((o.colour is not None) + (o.size is not None) for o in named)
    right_attributes = sum(
        (one.colour == true.colour) + (one.size == true.size) for one, true in agree
    )
    right_places = sum(one.cell == true.cell for one, true in agree)
    count = len(scene.objects)
    grounds = ((said.background, truth.background), (said.style, truth.style))
    right_grounds = sum(one == true for one, true in grounds)
    right_count = said.count == count
    return {
        "object": (len(named), len(pairs), count, len(pairs)),
        "attribute": (stated_attributes, right_attributes, 2 * count, right_attributes),
        "relation": (
            sum(thing.cell is not None for thing in named), right_places, count, right_places
        ),
        "count": (said.count is not None, right_count, 1, right_count),
        "background": (sum(one is not None for one, _ in grounds), right_grounds, 2, right_grounds),
    }  # fmt: skip


def _paired(
    named: Sequence[ObjectFact], true: Sequence[ObjectFact]
) -> list[tuple[ObjectFact, int]]:
    """Each stated object with the place of the true one that it speaks of; the rest is made up."""
    from scipy.optimize import linear_sum_assignment

    if not named:
        return []
    # A shared shape outweighs any number of shared attributes.
    gain = np.array(
        [
            [
                (one.shape == other.shape)
                * (10 + (one.colour == other.colour) + (one.size == other.size))
                + (one.shape == other.shape) * (one.cell == other.cell)
                for other in true
            ]
            for one in named
        ]
    )
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return [
        (named[row], int(column))
        for row, column in zip(rows, columns, strict=True)
        if gain[row, column]
    ]


def _main(texts: Sequence[str], scenes: Sequence[Scene], stated: np.ndarray) -> Tally:  # type: ignore[type-arg]
    hits = np.array(
        [
            any(
                (o.colour, o.shape) == (scene.main.colour, scene.main.shape)
                for o in facts(text, scene.grid).objects
            )
            for text, scene in zip(texts, scenes, strict=True)
        ],
        float,
    )
    return Tally(stated, hits, np.ones(len(hits)), hits)


def world_truth(dataset: Dataset, truth: Path | str) -> WorldTruth:
    """The scenes of the stored samples, from truth.parquet of the web that was curated.

    Raises:
        ConfigError: the file is not there or is no truth of a synthetic web.
    """
    truth = Path(truth)
    if not truth.exists():
        raise ConfigError(f"The synthetic web's truth {truth} does not exist.")
    try:
        columns = pq.read_schema(truth).names
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{truth} is not readable as Parquet ({error}).") from error
    if "scene" not in columns:
        raise ConfigError(f"{truth} has no column `scene`: it is no truth of a synthetic web.")
    connection = dataset.connect(["samples"])
    rows = connection.execute(
        "SELECT key, scene FROM samples JOIN "
        "(SELECT scene, file_row_number AS row FROM "
        f"{parquet_scan(truth, file_row_number=True)}) USING (row) WHERE status = 'stored'"
    ).fetchall()
    return WorldTruth({key: Scene.from_json(scene) for key, scene in rows})


def truth_beside(dataset: Dataset) -> Path:
    """truth.parquet beside the list of URLs that the dataset was curated from.

    Raises:
        ConfigError: the dataset does not say where its list was, or nothing stands beside it.
    """
    source = dataset.record().get("identity", {}).get("input")
    if isinstance(source, str) and (path := Path(source).with_name("truth.parquet")).exists():
        return path
    raise ConfigError(
        f"No truth.parquet stands beside the list that {dataset.directory} was curated from; give "
        f"the file itself: --truth WORLD/truth.parquet."
    )
