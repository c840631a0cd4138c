"""Where a head comes from: a published name, a URL, a hub file, or a file of a known kind.

Aesthetic heads as SQL: a head without activations is one dot product, so DuckDB can do it.

    aesthetic_v2(image_embedding)          LAION's improved predictor (sac+logos+ava1), on ViT-L/14
    aesthetic_v1_l14(image_embedding)      LAION's first ones, each on its own CLIP model
    aesthetic_v1_b32(...), aesthetic_v1_b16(...)

in a rule of `caplab select` compute the score from the stored embeddings, whether or not it was
ever scored. `head_sql` writes the same for any DuckDB over the Parquet files. The weights are
LAION's own, out of the cache (`caplab weights laion-aesthetic-v2`); none are shipped here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from curate.base.errors import ConfigError
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

if TYPE_CHECKING:
    import duckdb


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
        return _published(name, entry, sha256, allow_pickle)
    if _is_plain_name(name):
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


def _published(
    name: str, entry: Published, sha256: str | None, allow_pickle: Collection[str]
) -> Path:
    sha256 = sha256 or entry.sha256
    if sha256 is None:
        raise ConfigError(
            f"The sha256 of {name} ({entry.url}) is not known here; give it as "
            f"{name}#sha256=HEX, or download the file and give its path."
        )
    return converted(
        entry.url,
        _conversion(entry, Path(entry.file_name)),
        mark=name,
        sha256=sha256,
        allow_pickle={*allow_pickle, sha256} if name in allow_pickle else allow_pickle,
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


def _is_plain_name(name: str) -> bool:
    return "/" not in name and "." not in name and ":" not in name


FUNCTIONS: Mapping[str, str] = {
    "aesthetic_v2": "laion-aesthetic-v2",
    "aesthetic_v1_l14": "laion-aesthetic-v1-l14",
    "aesthetic_v1_b32": "laion-aesthetic-v1-b32",
    "aesthetic_v1_b16": "laion-aesthetic-v1-b16",
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
    return f"CREATE OR REPLACE TEMP MACRO {name}(embedding) AS {head_sql(head)}"


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
                f"{name}() needs LAION's weights, once: run `caplab weights {published}` ({error})"
            ) from error
        connection.execute(macro_sql(name, Head.load(path)))
