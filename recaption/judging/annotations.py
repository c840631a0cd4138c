"""Annotated pictures: COCO's instances.json, or JSON lines of objects, attributes and relations.

    {"key" | "file_name" | "url": ...,
     "objects": [{"name": "dog", "count": 2, "attributes": ["brown"]}, ...],
     "relations": [["dog", "left of", "cat"], ...]}

one picture a line. "count" is 1 where it is left out, null where it is not known; without
"attributes" or "relations" they are unknown and not judged, with an empty list there are none. One
line may be {"vocabulary": {"dog": ["hound", ...]}}: further words for a name. Every name of the
file is looked for in every picture, so list in each picture all that it shows of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.base.errors import ConfigError
from curate.base.telling.words import amount
from curate.store.dataset import Dataset
from recaption.judging.object_names import phrases
from recaption.judging.reader import CaptionReader, Mention, Reading
from recaption.judging.reader_words import INVERSES
from recaption.judging.truth import Tally, TruthCounts

KINDS = ("object", "attribute", "relation", "count")


@dataclass(frozen=True)
class TrueObject:
    """Things of one name in a picture that are alike.

    `count` is None where the number is unknown, `attributes` None where nobody noted any.
    """

    name: str
    count: int | None = 1
    attributes: frozenset[str] | None = None


@dataclass(frozen=True)
class PictureTruth:
    """What a picture shows; `relations` is None where nobody noted any."""

    objects: tuple[TrueObject, ...]
    relations: frozenset[tuple[str, str, str]] | None = None


class AnnotatedTruth:
    """The truth of annotated pictures; see recaption.judging.truth.Truth."""

    def __init__(
        self,
        name: str,
        pictures: dict[str, PictureTruth],
        reader: CaptionReader,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Take the pictures by sample key, and a reader of their vocabulary."""
        self.name, self.pictures, self.reader, self.notes = name, pictures, reader, notes

    def keys(self) -> pa.Array:
        return pa.array(sorted(self.pictures), pa.string())

    def judge(self, keys: Sequence[str], texts: Sequence[str]) -> TruthCounts:
        rows: dict[str, list[tuple[float, float, float, float]]] = {kind: [] for kind in KINDS}
        mentions, hallucinated = [], []
        for key, text in zip(keys, texts, strict=True):
            said, truth = self.reader.read(text), self.pictures[key]
            for kind, row in compare(said, truth).items():
                rows[kind].append(row)
            there = {thing.name for thing in truth.objects}
            mentions.append(len(said.mentions))
            hallucinated.append(sum(mention.name not in there for mention in said.mentions))
        return TruthCounts(
            {kind: Tally.of(found) for kind, found in rows.items()},
            pa.array(mentions, pa.float64()).to_numpy(),
            pa.array(hallucinated, pa.float64()).to_numpy(),
        )


def compare(said: Reading, truth: PictureTruth) -> dict[str, tuple[float, float, float, float]]:
    """(stated, right, there, found) of every kind of statement.

    object     names: said at least once, there at least once.
    attribute  (object, attribute) pairs. A mention speaks of the thing of its name that it fits
               best; an attribute of a thing that is not there is wrong.
    relation   triples; "a left of b" and "b right of a" are one.
    count      names with a number. There: names of which there are two or more, and names of which
               there is one and the caption says so.
    """
    named = {mention.name for mention in said.mentions}
    there = {thing.name for thing in truth.objects}
    both = len(named & there)
    return {
        "object": (len(named), both, len(there), both),
        "attribute": _attributes(said.mentions, truth),
        "relation": _relations(said, truth),
        "count": _counts(said.mentions, truth),
    }


def _attributes(
    mentions: Sequence[Mention], truth: PictureTruth
) -> tuple[float, float, float, float]:
    stated = right = 0
    told: dict[int, set[str]] = {}
    unknown = {thing.name for thing in truth.objects if thing.attributes is None}
    for mention in mentions:
        if mention.name in unknown:
            continue
        stated += len(mention.attributes)
        best, most = -1, 0
        for place, thing in enumerate(truth.objects):
            agree = len(mention.attributes & (thing.attributes or frozenset()))
            if thing.name == mention.name and agree > most:
                best, most = place, agree
        if best >= 0:
            right += most
            told.setdefault(best, set()).update(
                mention.attributes & (truth.objects[best].attributes or frozenset())
            )
    there = sum(len(t.attributes or ()) for t in truth.objects if t.name not in unknown)
    return stated, right, there, sum(map(len, told.values()))


def _relations(said: Reading, truth: PictureTruth) -> tuple[float, float, float, float]:
    if truth.relations is None:
        return 0, 0, 0, 0
    stated = {_canonical(relation) for relation in said.relations}
    there = {_canonical(relation) for relation in truth.relations}
    both = len(stated & there)
    return len(stated), both, len(there), both


def _canonical(relation: tuple[str, str, str]) -> tuple[str, str, str]:
    """One of the two ways to say a relation."""
    subject, name, other = relation
    inverse = INVERSES.get(name)
    return min(relation, (other, inverse, subject)) if inverse else relation


def _counts(mentions: Sequence[Mention], truth: PictureTruth) -> tuple[float, float, float, float]:
    total: Counter[str] = Counter()
    unknown = {thing.name for thing in truth.objects if thing.count is None}
    for thing in truth.objects:
        total[thing.name] += thing.count or 0
    said: dict[str, list[int]] = {}
    for mention in mentions:
        if mention.number is not None and mention.name not in unknown:
            said.setdefault(mention.name, []).append(mention.number)
    # "one dog left, one dog right" adds up to two; "two dogs; one dog sleeps" stays two.
    right = {name for name, every in said.items() if total[name] in (sum(every), max(every))}
    there = {name for name, number in total.items() if number >= 2 and name not in unknown}
    there |= {name for name in right if total[name] == 1}
    return len(said), len(right), len(there), len(right & there)


# ---- reading files ------------------------------------------------------------------------------


def read_annotations(path: Path | str, dataset: Dataset) -> AnnotatedTruth:
    """The truth in a file, for the samples of a dataset that it tells of.

    A picture belongs to the sample whose key, URL or last part of the URL it names; a last part
    that several URLs share is left out and noted.

    Raises:
        ConfigError: the file is not there, is neither format, or tells of no sample. The first bad
            line is named.

    Memory: the whole file (COCO's training split: about 4 GB while it is read).
    """
    path = Path(path)
    vocabulary: dict[str, list[str]] = {}
    try:
        if path.suffix == ".jsonl":
            named = dict(_json_lines(path, vocabulary))
        else:
            named = _instances(json.loads(path.read_text(encoding="utf-8")), path)
    except OSError as error:
        raise ConfigError(f"The truth {path} cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"The truth {path} is not JSON ({error}).") from error
    pictures, notes = _by_key(named, dataset)
    if not pictures:
        raise ConfigError(
            f"{path} tells of none of the samples of {dataset.directory}: its pictures are matched "
            f"by key, URL or the last part of the URL (its first is {next(iter(named), '')!r})."
        )
    every = list(named.values())
    names = {thing.name for truth in every for thing in truth.objects}
    names |= vocabulary.keys()
    attributes = {a for truth in every for t in truth.objects for a in (t.attributes or ())}
    relations = {name for truth in every for _, name, _ in (truth.relations or ())}
    reader = CaptionReader(phrases(sorted(names), vocabulary), attributes, relations)
    return AnnotatedTruth(path.name, pictures, reader, notes)


def _instances(content: Any, path: Path) -> dict[str, PictureTruth]:
    """File name (or key, or URL) -> truth, of COCO's instances format."""
    try:
        names = {row["id"]: str(row["name"]).lower() for row in content["categories"]}
        counts: dict[Any, Counter[str]] = {row["id"]: Counter() for row in content["images"]}
        crowds: dict[Any, set[str]] = {row["id"]: set() for row in content["images"]}
        for row in content["annotations"]:
            name = names[row["category_id"]]
            counts[row["image_id"]][name] += 1
            if row.get("iscrowd"):
                crowds[row["image_id"]].add(name)
        places = {
            row["id"]: str(row.get("key") or row.get("file_name") or row["coco_url"])
            for row in content["images"]
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not in COCO's instances format (categories, images and annotations with "
            f"ids): {error!r}; a file of JSON lines ends in .jsonl."
        ) from error
    return {
        places[image]: PictureTruth(
            tuple(
                TrueObject(name, None if name in crowds[image] else number)
                for name, number in sorted(found.items())
            )
        )
        for image, found in counts.items()
    }


def _json_lines(path: Path, vocabulary: dict[str, list[str]]) -> Iterable[tuple[str, PictureTruth]]:
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if "vocabulary" in row:
                    for name, words in row["vocabulary"].items():
                        vocabulary.setdefault(name.lower(), []).extend(words)
                    continue
                yield _place(row), _picture(row)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ConfigError(
                    f"Line {number} of {path} is not an annotated picture ({error!r}); see "
                    f"docs/captions.md for the format."
                ) from error


def _place(row: dict[str, Any]) -> str:
    place = row.get("key") or row.get("file_name") or row.get("url")
    if not isinstance(place, str):
        raise ValueError("it needs a key, a file_name or a url")
    return place


def _picture(row: dict[str, Any]) -> PictureTruth:
    objects = []
    for thing in row["objects"]:
        attributes, count = thing.get("attributes"), thing.get("count", 1)
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"count is {count!r}, not a number above 0 or null")
        known = None if attributes is None else frozenset(str(a).lower() for a in attributes)
        objects.append(TrueObject(str(thing["name"]).lower(), count, known))
    relations = row.get("relations")
    if relations is None:
        return PictureTruth(tuple(objects))
    triples = [(str(a).lower(), str(name).lower(), str(b).lower()) for a, name, b in relations]
    return PictureTruth(tuple(objects), frozenset(triples))


def _by_key(
    named: dict[str, PictureTruth], dataset: Dataset
) -> tuple[dict[str, PictureTruth], tuple[str, ...]]:
    """Sample key -> truth."""
    connection = dataset.connect(["samples"])
    connection.register("named", pa.table({"name": pa.array(list(named), pa.string())}))
    stored = "SELECT key, url, regexp_extract(split_part(url, '?', 1), '[^/]+$') AS last"
    rows = connection.execute(
        f"WITH stored AS ({stored} FROM samples WHERE status = 'stored') "
        "SELECT key, name, 0 AS loose, key AS url FROM stored JOIN named ON key = name UNION ALL "
        "SELECT key, name, 0, url FROM stored JOIN named ON url = name UNION ALL "
        "SELECT key, name, 1, url FROM stored JOIN named "
        "ON last = regexp_extract(name, '[^/]+$') WHERE url <> name"
    ).fetchall()
    urls: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {}
    for key, name, loose, url in rows:
        if loose:
            urls.setdefault(name, set()).add(url)
            names.setdefault(key, set()).add(name)
    exact = {key: named[name] for key, name, loose, _ in rows if not loose}
    loose_keys = {
        key: named[name]
        for key, name, loose, _ in rows
        if loose and len(urls[name]) == 1 and len(names[key]) == 1
    }
    pictures = loose_keys | exact
    ambiguous = len({key for key, _, loose, _ in rows if loose} - pictures.keys())
    notes = [f"{len(pictures):,} of {len(named):,} annotated pictures are samples here."]
    if ambiguous:
        shared = amount(ambiguous, "sample shares", "samples share")
        notes.append(f"{shared} a file name with another: left out.")
    return pictures, tuple(notes)
