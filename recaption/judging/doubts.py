"""When CLIP is no judge of a caption set: it tells nothing of it, or the captioner is its sibling.

A difference that such a judge finds is told without a star, and the reason beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

from curate.scoring.scored_with import clip_models
from curate.store.dataset import Dataset
from recaption.judging.caption_sets import CaptionSet, add_view
from recaption.judging.intervals import Estimate
from recaption.judging.retrieval import CHANCE, GROUP

Family = Collection[str]
"""sha256 of weights that one maker trained on the same data, such as the synthetic world's."""


def near_chance(found: Estimate | None) -> bool:
    """Whether R@1 is no better than guessing: below twice chance, or its interval reaches it."""
    return found is not None and (found.value < 2 * CHANCE or found.low <= CHANCE)


def chance_doubt(name: str, found: Estimate | None) -> str | None:
    """Why CLIP does not judge a set that it cannot tell from its shuffled self; None where it can.

    Args:
        found: R@1 of the set; None where it was not measured.
    """
    if found is None or not near_chance(found):
        return None
    return (
        f"by this CLIP model {name} find their own picture among {GROUP} in {found.value:.3f} of "
        f"cases, near chance ({CHANCE:.3f}), so its similarities say nothing of them"
    )


def kin_doubt(dataset: Dataset, one: CaptionSet, families: Sequence[Family] = ()) -> str | None:
    """Why similarities do not judge a set: the captioner's own maker made the CLIP model.

    The same weights (CoCa is both), weights of one family, or models of one owner on the hub. A
    captioner behind a server is known by its name alone, so kinship of its weights is not seen.
    """
    if one.is_human or one.is_of_people:
        return None
    connection = duckdb.connect()
    add_view(connection, dataset, one.source, "rows")
    makers = connection.execute(
        "SELECT DISTINCT model, model_revision FROM rows WHERE kind = $kind", {"kind": one.kind}
    ).fetchall()
    judges = set((dataset.record().get("weights") or {}).values())
    clip = clip_models(dataset, ["clip_similarity"]).get("clip_similarity") or ""
    for model, revision in makers:
        kin = revision in judges or any(revision in own and judges & set(own) for own in families)
        if kin or _owner(str(model)) == _owner(clip.removeprefix("hf-hub:")) != "":
            return (
                f"{one.name} is judged by a CLIP model of its captioner's own maker, which may "
                f"have learnt the same mistakes"
            )
    return None


def _owner(model: str) -> str:
    """ "OWNER" of a hub id OWNER/NAME; empty for a name without one."""
    owner, slash, _ = model.partition("/")
    return owner.lower() if slash else ""
