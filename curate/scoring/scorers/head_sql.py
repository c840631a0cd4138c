"""Aesthetic heads as SQL: a head without activations is one dot product, so DuckDB can do it.

    aesthetic_v2(image_embedding)          LAION's improved predictor (sac+logos+ava1), on ViT-L/14
    aesthetic_v1_l14(image_embedding)      LAION's first ones, each on its own CLIP model
    aesthetic_v1_b32(...), aesthetic_v1_b16(...)

in a rule of `caplab select` compute the score from the stored embeddings, whether or not it was
ever scored. `head_sql` writes the same for any DuckDB over the Parquet files. The weights are
LAION's own, out of the cache (`caplab weights laion-aesthetic-v2`); none are shipped here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from curate.base.errors import ConfigError
from curate.scoring.scorers.head_source import find_head
from curate.scoring.scorers.heads import Head

if TYPE_CHECKING:
    import duckdb

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
