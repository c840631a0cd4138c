"""The scorer of a head, and where one comes from: a published name, a URL, a hub file, a file.

Aesthetic heads as SQL: a head without activations is one dot product, so DuckDB can do it.

    aesthetic_v2(image_embedding)          LAION's improved predictor (sac+logos+ava1), on ViT-L/14
    aesthetic_v1_l14(image_embedding)      LAION's first ones, each on its own CLIP model
    aesthetic_v1_b32(...), aesthetic_v1_b16(...)
    aesthetic_v25(image_embedding)         aesthetic predictor v2.5, on SigLIP so400m

in a rule of `caplab select` compute the score from the stored embeddings, whether or not it was
ever scored. `head_sql` writes the same for any DuckDB over the Parquet files. The weights are their
authors' own, out of the cache (`caplab weights laion-aesthetic-v2`); none are shipped here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.base.errors import ConfigError
from curate.base.files import sha256_file
from curate.base.settings import nearest
from curate.base.weight_download import (
    HUB,
    Convert,
    converted,
    fetch,
    hub_file,
    keep_safetensors,
    split_hash,
)
from curate.base.weights import SAFE_SUFFIX
from curate.scoring.scorers.heads import Head, convert_head
from curate.scoring.scorers.keras_head import convert_keras_head
from curate.scoring.scorers.published import PUBLISHED, Published, by_file_name
from curate.scoring.scorers.scorer import Column, Columns, ModelScorer, check_label

if TYPE_CHECKING:
    import duckdb

    from curate.scoring.settings import ScoreSettings


class HeadScorer(ModelScorer[Head]):
    """Adds one column: what a head says of an image embedding.

    Args:
        column: its name, such as "aesthetic" or "nsfw".
        path: the head, a safetensors file in the format of curate.scoring.scorers.heads.
        embedding: the column of embeddings that it rests on.
    """

    def __init__(self, column: str, path: Path | str, embedding: str = "image_embedding") -> None:
        self.name, self.adds, self.needs = column, (column,), (embedding,)
        self.path = Path(path)
        if not self.path.is_file():
            raise ConfigError(f"The {self.name} head {path} does not exist.")
        self.sha256 = sha256_file(self.path)

    @classmethod
    def of(cls, settings: ScoreSettings) -> list[HeadScorer]:
        """The two heads that have settings of their own, and the further ones by column."""
        named = {"aesthetic": settings.aesthetic_head, "nsfw": settings.nsfw_head}
        wanted = {column: source for column, source in named.items() if source is not None}
        main = "@".join(filter(None, (settings.clip_model, settings.clip_pretrained)))
        scorers = []
        for column, source in {**wanted, **settings.more_heads}.items():
            check_label(column)
            head, label = _split_label(source)
            if label and label not in settings.more_clips:
                raise ConfigError(
                    f"The head {column!r} rests on the CLIP model {label!r}, which is not among "
                    f"--more-clips ({', '.join(settings.more_clips) or 'none'})."
                )
            _check_clip(column, head, settings.more_clips[label] if label else main)
            embedding = f"image_embedding_{label}" if label else "image_embedding"
            scorers.append(cls(column, find_head(head, settings.allow_pickle), embedding))
        return scorers

    def signature(self) -> dict[str, Any]:
        """The weights' hash."""
        return {"version": 1, "sha256": self.sha256}

    def hashes(self) -> Mapping[str, str]:
        return {self.path.name: self.sha256}

    def load(self) -> Head:
        return Head.load(self.path)

    def score(self, columns: Mapping[str, Column]) -> Columns:
        return {self.name: self.model(columns[self.needs[0]])}


def _check_clip(column: str, head: str, clip: str) -> None:
    """Raise ConfigError for a published head on another published CLIP model than its own.

    By its name, or by the name of its file: SigLIP and SigLIP 2 give embeddings of one width, and
    a head of the one loads on the other. Local CLIP weights and hub models are taken at their
    user's word: they may be the same model.
    """
    name = split_hash(head)[0]
    entry = PUBLISHED.get(name) or by_file_name(Path(name).name)
    published = "/" not in clip and ":" not in clip and not clip.endswith(".json")
    if entry is not None and entry.clip and published and clip != entry.clip:
        raise ConfigError(
            f"The head {head} for {column!r} was trained on {entry.clip}; on {clip} its numbers "
            f"mean nothing. Add --more-clips LABEL={entry.clip} and write {head}@LABEL."
        )


def _split_label(source: str) -> tuple[str, str]:
    """(source, label of the CLIP model that it rests on): `HEAD@b32`; "" is the main model."""
    head, separator, label = source.rpartition("@")
    # A hub's revision is followed by a file: hf-hub:ORG/NAME@REVISION/FILE.
    if not separator or "/" in label:
        return source, ""
    return head, label


def find_head(source: str, allow_pickle: Collection[str] = ()) -> Path:
    """The head of `source` as a local .safetensors file (see curate.base.weight_download).

    Raises:
        ConfigError: no such name or file, a wrong hash, or a pickle that the user did not name.
    """
    name, sha256 = split_hash(source)
    entry = PUBLISHED.get(name)
    if entry is not None:
        if entry.kind == "watermark":
            raise ConfigError(f"{name} is no head on an embedding; give it to --watermark-model.")
        sha256 = entry.hash_or(sha256, name)
        if name in allow_pickle:
            allow_pickle = {*allow_pickle, sha256}
        convert = _conversion(entry, Path(entry.file_name))
        return converted(entry.url, convert, mark=name, sha256=sha256, allow_pickle=allow_pickle)
    if not any(mark in name for mark in "/.:"):
        heads = [known for known, one in PUBLISHED.items() if one.kind != "watermark"]
        raise ConfigError(f"There is no published head {name!r}; {nearest(name, heads)}")
    path = Path(name)
    if path.suffix == SAFE_SUFFIX and not name.startswith((HUB, "http://", "https://")):
        if not path.is_file():
            raise ConfigError(f"The head {name} does not exist.")
        if sha256 is not None:
            fetch(name, sha256, path.parent)
        return path
    if path.suffix == SAFE_SUFFIX and name.startswith(HUB) and sha256 is None:
        return hub_file(name)
    known = by_file_name(path.name)
    return converted(
        name, _conversion(known, path), mark="head", sha256=sha256, allow_pickle=allow_pickle
    )


def _conversion(known: Published | None, path: Path) -> Convert:
    if path.suffix == SAFE_SUFFIX:
        return keep_safetensors
    if path.suffix == ".zip":
        return lambda source, target, _: convert_keras_head(source, target)
    if known is None or known.kind != "linear":
        raise ConfigError(
            f"{path.name} does not say what stands between its layers; write it as a head with "
            "curate.scoring.scorers.heads.convert_head, which takes the activation, and give that "
            "file."
        )
    return lambda source, target, trusted: convert_head(
        source,
        target,
        activation=known.activation,
        output="sigmoid" if known.output == "sigmoid" else "score",
        allow_pickle=trusted,
    )


FUNCTIONS: Mapping[str, str] = {
    "aesthetic_v2": "laion-aesthetic-v2",
    "aesthetic_v1_l14": "laion-aesthetic-v1-l14",
    "aesthetic_v1_b32": "laion-aesthetic-v1-b32",
    "aesthetic_v1_b16": "laion-aesthetic-v1-b16",
    "aesthetic_v25": "aesthetic-v2.5",
}


def head_sql(head: Head, embedding: str = "embedding") -> str:
    """The head as an SQL expression over a column of L2-normalised embeddings (a list of FLOAT).

    Raises:
        ConfigError: the head has activations, categories or a sigmoid, so it is no dot product.
    """
    plain = head.preparation.mean is None and not head.preparation.categories
    if len(head.weights) != 1 or head.output != "score" or not plain:
        raise ConfigError("Only a head without activations is a dot product that SQL can compute.")
    numbers = ", ".join(f"{float(weight):.9g}" for weight in head.weights[0][0])
    bias = float(head.biases[0][0])
    return f"list_dot_product({embedding}::FLOAT[], [{numbers}]::FLOAT[]) + {bias:.9g}"


def macro_sql(name: str, head: Head) -> str:
    """A statement that makes the head a function of an embedding."""
    return f"CREATE OR REPLACE MACRO {name}(embedding) AS {head_sql(head)}"


def add_head_functions(connection: duckdb.DuckDBPyConnection, rule: str) -> None:
    """Make the functions that `rule` names; nothing is read for those that it does not.

    Raises:
        ConfigError: the head's weights are not in the cache and cannot be had without a word of
            the user.
    """
    for name, published in FUNCTIONS.items():
        if f"{name}(" not in rule.lower().replace(" ", ""):
            continue
        try:
            path = find_head(published)
        except ConfigError as error:
            raise ConfigError(
                f"{name}() needs its weights, once: run `caplab weights {published}` ({error})"
            ) from error
        connection.execute(macro_sql(name, Head.load(path)))
