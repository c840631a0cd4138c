"""Round trip on a user's own pictures: drawn again from their captions, how alike are they?

No scene and no benchmark is needed: held-out pictures, captioned, are what was meant. The cosine of
drawn picture and original stands beside its floor, the cosine with another held-out original.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.base.errors import ConfigError
from curate.base.files import fingerprint
from curate.base.settings import OPERATIONAL, Settings
from curate.store.dataset import Dataset
from pipelines.judges.asked import record
from pipelines.judges.protocol import Judge, Pictures

if TYPE_CHECKING:
    import pyarrow as pa


class RoundTripOptions(Settings):
    """Where the originals are, and which model compares pictures."""

    dataset: str = Field(description="The dataset that holds the originals.")
    encoder: Literal["clip", "dino"] = Field(
        "clip",
        description="clip: a CLIP model of open_clip, which sees what is shown. dino: a DINOv2 or "
        "DINOv3 of transformers, which sees parts and layout as well.",
    )
    model: str = Field(
        "ViT-L-14-quickgelu",
        description="An open_clip name; for dino a folder or hub id such as facebook/dinov2-base.",
    )
    pretrained: str | None = Field("openai", description="Tag or file of a CLIP model's weights.")
    batch_size: int = Field(
        64, ge=1, description="Pictures a forward pass.", json_schema_extra=OPERATIONAL
    )


class RoundTripJudge(Judge):
    """Cosine of the drawn picture with its original, and with another one."""

    Options = RoundTripOptions
    options: RoundTripOptions
    metrics = ("round_trip_similarity", "round_trip_floor")
    limits = (
        "A caption does not say everything: even a perfect model draws another picture. Only "
        "differences between arms count, and how far each is above its floor.",
        "Longer captions say more of the original, so prompt forms do not compare with each other.",
        "The originals must be held out of training, or a model that remembers them wins.",
    )

    def __init__(self, options: RoundTripOptions, device: str) -> None:
        super().__init__(options, device)
        self._dataset = Dataset.open(options.dataset)
        self._encoder: _Clip | _Dino = (
            _Clip(options, device) if options.encoder == "clip" else _Dino(options, device)
        )
        self._embedded: dict[tuple[str, int], NDArray[np.float64]] = {}

    def identity(self) -> dict[str, Any]:
        return self._encoder.identity

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        pairs = [_keys(intent) for intent in asked.column("intent").to_pylist()]
        originals = self._originals(
            [key for pair in pairs if pair for key in pair], pictures.shape[1]
        )
        none = np.full(self._encoder.width, np.nan)
        own, other = (
            np.stack([originals[pair[n]] if pair else none for pair in pairs]) for n in (0, 1)
        )
        drawn = self._encoder.embed(pictures)
        similarity, floor = ((drawn * one).sum(axis=1) for one in (own, other))
        return {"round_trip_similarity": similarity, "round_trip_floor": floor}

    def targets(self, asked: pa.Table, resolution: int) -> Pictures | None:
        """The originals, cut to the middle square; None where a prompt is of another kind."""
        pairs = [_keys(intent) for intent in asked.column("intent").to_pylist()]
        keys = [pair[0] for pair in pairs if pair]
        if len(keys) < len(pairs):
            return None
        shown = read_pictures(self._dataset, set(keys), resolution)
        return np.stack([shown[key] for key in keys])

    def _originals(self, keys: Sequence[str], side: int) -> dict[str, NDArray[np.float64]]:
        """Their embeddings at the drawn pictures' side; each is read once."""
        new = sorted({key for key in keys if (key, side) not in self._embedded})
        if new:
            shown = read_pictures(self._dataset, new, side)
            vectors = self._encoder.embed(np.stack([shown[key] for key in new]))
            self._embedded |= {(k, side): v for k, v in zip(new, vectors, strict=True)}
        return {key: self._embedded[key, side] for key in keys}


def round_trip_prompts(
    dataset: Dataset,
    selection: str,
    kinds: Sequence[str],
    count: int,
    sources: Mapping[str, str] | None = None,
) -> pa.Table:
    """Captions of held-out pictures as prompts: one form a kind, the same pictures in each.

    Args:
        selection: of pictures that no arm is trained on.
        kinds: caption kinds, in the captions table.
        count: pictures, drawn by hash, so that more of them hold the earlier ones.
        sources: kind -> who wrote it, where several captioners did.

    Returns:
        Rows of PROMPTS; `intent` names the picture's key and that of another one, for the floor.

    Raises:
        ConfigError: a kind that nobody wrote, or fewer than two pictures have all kinds.
    """
    from pipelines.judges.prompts import prompts_table

    texts = {kind: _captions(dataset, kind, (sources or {}).get(kind)) for kind in kinds}
    order = sorted(dataset.selection_keys(selection), key=fingerprint)
    whole: list[str] = []
    seen: set[tuple[str, str]] = set()
    for key in order:
        own = {(kind, texts[kind].get(key, "")) for kind in kinds}
        # Texts are distinct within a form, so of pictures with one text the first counts.
        if all(text for _, text in own) and not own & seen:
            whole.append(key)
            seen |= own
    if len(whole) < 2:
        raise ConfigError(
            f"Fewer than two pictures of {selection} have captions of {', '.join(kinds)}."
        )
    rows = []
    for kind in kinds:
        for place, key in enumerate(whole[:count]):
            # Of all, not of `count`: the floor's pair stays when more are asked for.
            other = whole[(place + 1) % len(whole)]
            intent = json.dumps({"key": key, "other": other})
            row = {"form": kind, "wording": "own", "intent_id": fingerprint(intent)}
            rows.append({**row, "prompt": texts[kind][key], "intent": intent})
    return prompts_table(rows)


def read_pictures(
    dataset: Dataset, keys: Collection[str], side: int
) -> dict[str, NDArray[np.uint8]]:
    """Stored pictures by key, (side, side, 3): the shorter side resized, the middle cut out.

    Raises:
        ConfigError: the dataset does not store one of them.
    """
    from curate.pictures.decode import PictureView, model_view
    from curate.store.shards import iter_shard
    from recaption.engines.pictures import decode

    wanted = sorted(keys)
    rows = dataset.connect(["samples"]).execute(
        "SELECT shard, list(key) FROM samples WHERE status = 'stored' AND key IN "
        "(SELECT unnest($keys)) GROUP BY shard ORDER BY shard",
        {"keys": wanted},
    )
    view, found = PictureView(side, draft=False), {}
    for shard, own in rows.fetchall():
        for key, encoded, _ in iter_shard(dataset, shard, set(own)):
            found[key] = model_view(np.asarray(decode(encoded)), view)
    if lost := [key for key in wanted if key not in found]:
        raise ConfigError(
            f"{dataset.directory} stores {len(found)} of {len(wanted)} originals and not {lost[0]}."
        )
    return found


def _captions(dataset: Dataset, kind: str, source: str | None) -> dict[str, str]:
    """Key -> its first caption of a kind."""
    from curate.store.captions import accepted_captions

    table = accepted_captions(dataset, [kind], {kind: source} if source else None)
    pairs = zip(table["key"].to_pylist(), table["text"].to_pylist(), strict=True)
    return {key: text.strip() for key, text in reversed(list(pairs))}


def _keys(intent: str | None) -> tuple[str, str] | None:
    """The keys of a prompt's picture and of the other one; None where it names none."""
    named = record(intent) or {}
    return (str(named["key"]), str(named["other"])) if {"key", "other"} <= named.keys() else None


class _Clip:
    def __init__(self, options: RoundTripOptions, device: str) -> None:
        from curate.scoring.scorers.clip import Clip

        clip = Clip(options.model, options.pretrained, device=device)
        self.identity = clip.signature()
        self._model, self._batch_size = clip.model, options.batch_size
        self.width = clip.width

    def embed(self, pictures: Pictures) -> NDArray[np.float64]:
        return self._model.embed_pictures(pictures, self._batch_size).astype(np.float64)


class _Dino:
    """The class token of a vision transformer, of unit length."""

    def __init__(self, options: RoundTripOptions, device: str) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModel

        from curate.base.settings import device_of
        from pipelines.judges.models import found

        folder, digest = found("picture encoder", options.model)
        self.identity = {"model": digest}
        self._device, self._batch_size = torch.device(device_of(device)), options.batch_size
        try:
            self._processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
            said = str(error).strip().splitlines()[0]
            raise ConfigError(f"{folder} does not load as a picture encoder ({said}).") from error
        self._model = model.eval().to(self._device)
        self.width = int(model.config.hidden_size)

    def embed(self, pictures: Pictures) -> NDArray[np.float64]:
        import torch

        parts = []
        for start in range(0, len(pictures), self._batch_size):
            some = list(pictures[start : start + self._batch_size])
            inputs = self._processor(images=some, return_tensors="pt").to(self._device)
            with torch.inference_mode():
                token = self._model(**inputs).last_hidden_state[:, 0].double()
                parts.append(torch.nn.functional.normalize(token, dim=-1).cpu().numpy())
        return np.concatenate(parts)
