"""What of its texts a study's models did not read: cut by the text window, or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.base.files import read_json
from pipelines.ablation.kept import Kept


def texts_lost(kept: Kept) -> dict[str, Any]:
    """`window` (tokens), `arms` (shares `cut` and `dropped` of the captions that an arm drew) and
    `prompts` (count and share `cut` by form); empty of a study that noted none.

    An arm's cut share is that of each of its kinds, weighed by how often the kind was drawn.
    """
    noted = {row["texts"]: row for row in kept.record.get("cut", [])}
    if not noted:
        return {}
    shares = {name: row["cut"] / max(row["count"], 1) for name, row in noted.items()}
    arms: dict[str, list[tuple[float, float]]] = {}
    for cell in kept.cells:
        summary = read_json(cell.directory / "summary.json")
        cut = sum(n * shares.get(f"{kind} captions", 0.0) for kind, n in summary["blend"].items())
        arms.setdefault(cell.arm, []).append((cut, summary["caption_dropout"]))
    means = {arm: np.mean(own, axis=0).tolist() for arm, own in arms.items()}
    return {
        "window": next(iter(noted.values()))["window"],
        "arms": [{"arm": arm, "cut": cut, "dropped": gone} for arm, (cut, gone) in means.items()],
        "prompts": [
            {"prompts": name, "count": row["count"], "cut": shares[name]}
            for name, row in noted.items()
            if not name.endswith(" captions")
        ],
    }


def fell_back(kept: Kept) -> list[str]:
    """A sentence for each arm that drew other kinds than it declares, as pictures lacked those."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in kept.cells:
        found.setdefault(cell.arm, []).append(read_json(cell.directory / "summary.json"))
    sentences = []
    for arm, runs in found.items():
        share = np.mean([run.get("fell_back", 0.0) for run in runs])
        if not share:
            continue
        drawn = ", ".join(
            f"{kind} {np.mean([run['blend'].get(kind, 0.0) for run in runs]):.1%} ({meant:.1%})"
            for kind, meant in kept.settings.all_arms[arm].captions.items()
        )
        sentences.append(
            f"Arm {arm} fell back in {share:.1%} of its draws, as pictures lacked the kind that "
            f"was drawn. Drawn, and declared in brackets: {drawn}."
        )
    return sentences


def told(lost: Mapping[str, Any]) -> list[str]:
    """The same in words; empty where nothing was noted."""
    if not lost:
        return []
    arms = "; ".join(
        f"{row['arm']} {row['cut']:.1%} cut, {row['dropped']:.1%} dropped" for row in lost["arms"]
    )
    prompts = ", ".join(f"{row['cut']:.1%} of {row['prompts']}" for row in lost["prompts"])
    return [
        f"captions drawn, cut behind {lost['window']} tokens: {arms}",
        f"prompts cut: {prompts}",
    ]
