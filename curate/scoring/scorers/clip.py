"""CLIP embeddings and similarity through open_clip: any of its models, one forward a sample.

Where the model comes from (`model`, `pretrained`):

    siglip2-so400m-384                  a short name of curate.scoring.clip_presets
    ViT-L-14-quickgelu, openai          a built-in name and a pretrained tag
    ViT-B-32, /path/weights.safetensors a built-in name and local weights
    /path/config.json, /path/x.safetensors   a config of one's own: open_clip's model config, or an
                                        open_clip_config.json with model_cfg and preprocess_cfg
    local-dir:/path/folder              open_clip's own folder layout
    hf-hub:org/name                     a repository on the hub

QuickGELU: OpenAI's weights (and some others) were trained with x * sigmoid(1.702 x) in place of
GELU. open_clip only warns when name and tag disagree, and the scores shift; here it is an error.

Embeddings are L2-normalised and rounded to float16 before anything is computed from them, because
float16 is what the table stores: every score that rests on an embedding can be computed again from
the stored one, in SQL if need be, with the same result. The rounding moves a cosine by about 1e-5.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.base.errors import ConfigError
from curate.base.settings import Precision, device_of, dtype_of, precision_of
from curate.pictures.decode import PictureView, model_view
from curate.scoring.clip_presets import resolved_clip
from curate.scoring.scorers.clip_forward import picture_features, text_features
from curate.scoring.scorers.clip_source import (
    check_source,
    config_mark,
    import_open_clip,
    refuse_pickle,
    registered,
)
from curate.scoring.scorers.clip_tokens import load_tokenizer, tokenizer_mark, tokens_of
from curate.scoring.scorers.scorer import Column, Columns, ModelScorer, Scorer, check_label

if TYPE_CHECKING:
    import torch

    from curate.scoring.settings import ScoreSettings


class Clip(ModelScorer["ClipModel"]):
    """Adds `image_embedding` (B, D), `text_embedding` (B, D), `clip_similarity` (B,) and
    `clip_truncated_tokens` (B,) int32.

    `clip_similarity` is the cosine of picture and alt text, -1 to 1: about 0.3 for a good pair of
    the published models (LAION-400M kept >= 0.30 of ViT-B/32, LAION-5B >= 0.28 for English). An
    empty or missing text has no embedding and no similarity: both are null.
    `clip_truncated_tokens` says how many tokens of the text the model never saw because its context
    ended (at 77 for most): 0 where it saw all, null without a text.

    Args:
        model, pretrained, tokenizer: see the module; `tokenizer` overrides the model's own with a
            folder for AutoTokenizer or a tokenizer.json.
        precision: of the weights and activations; layer norms stay in float32.
        device: "cpu", "cuda", "cuda:1", or "auto" for a GPU where there is one.
        draft: allow reduced-scale JPEG decoding (see curate.pictures.decode).
        allow_pickle: pickles that the user trusts, see curate.base.weight_download.
        label: tells a second model from the first: its columns are `clip_similarity_LABEL` and so
            on, and it has a view of the picture of its own.
    """

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        tokenizer: str | None = None,
        precision: Precision = "fp32",
        device: str = "auto",
        draft: bool = True,
        label: str = "",
        allow_pickle: Collection[str] = (),
    ) -> None:
        self.allow_pickle = tuple(allow_pickle)
        self.suffix = f"_{label}" if label else ""
        self.name = f"clip{self.suffix}"
        self.needs = (f"picture{self.suffix}", "alt_text")
        self.adds = tuple(
            f"{column}{self.suffix}"
            for column in (
                "image_embedding",
                "text_embedding",
                "clip_similarity",
                "clip_truncated_tokens",
            )
        )
        model, pretrained = resolved_clip(model, pretrained)
        self.source, self.pretrained, self.tokenizer = model, pretrained, tokenizer
        self.precision = precision_of(precision, device)
        self.device, self.draft = device, draft
        self.weights = check_source(model, pretrained)
        self._signature = {
            "version": 1,
            "weights": self.weights or [model, pretrained],
            "config": config_mark(model),
            "tokenizer": tokenizer_mark(tokenizer),
            "precision": self.precision,
            "draft": draft,
        }

    @classmethod
    def of(cls, settings: ScoreSettings) -> list[Clip]:
        """The main CLIP model and the further ones, by label."""
        options = (settings.precision, settings.device, settings.jpeg_draft)
        trusted = settings.allow_pickle
        main = (settings.clip_model, settings.clip_pretrained, settings.clip_tokenizer)
        clips = [cls(*main, *options, allow_pickle=trusted)]
        for label, source in settings.more_clips.items():
            check_label(label)
            whole = source.startswith(("hf-hub:", "local-dir:"))  # these bring their own weights
            model, _, pretrained = (source, "", "") if whole else source.partition("@")
            clips.append(cls(model, pretrained or None, None, *options, label, trusted))
        return clips

    def signature(self) -> dict[str, Any]:
        """Hashes of local weights (name and tag of published ones), config, precision."""
        return self._signature

    def load(self) -> ClipModel:
        return ClipModel(self)

    @property
    def view(self) -> PictureView:
        """How the model wants its pictures."""
        return self.model.view

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return self.model.width

    def views(self) -> Mapping[str, PictureView]:
        return {self.needs[0]: self.view}

    def hashes(self) -> Mapping[str, str]:
        return self.weights

    def score(self, columns: Mapping[str, Column]) -> Columns:
        image = self.model.embed_pictures(columns[self.needs[0]])
        text, truncated = self.model.read_texts(columns["alt_text"])
        similarity = np.einsum("bd,bd->b", image, text)
        cut = pa.array(truncated, pa.int32())
        return dict(zip(self.adds, (image, text, similarity, cut), strict=True))


def opening_of(scorers: Iterable[Scorer]) -> str:
    """What is said before the CLIP models among `scorers` are opened; empty where there are none.

    The others open in no time beside them.
    """
    models = [scorer.source for scorer in scorers if isinstance(scorer, Clip)]
    return f"loading {', '.join(models)}" if models else ""


class ClipModel:
    """An open_clip model on its device, with its tokenizer and normalisation."""

    @classmethod
    def load(cls, model: str, pretrained: str | None = None, **options: Any) -> ClipModel:
        """Load a model by the same names as `Clip`; `options` are Clip's other arguments."""
        return cls(Clip(model, pretrained, **options))

    def __init__(self, scorer: Clip) -> None:
        import torch

        open_clip = import_open_clip()
        name, options = registered(scorer.source)
        self.device = torch.device(device_of(scorer.device))
        try:
            if scorer.pretrained is not None and not scorer.weights:
                refuse_pickle(name, scorer.pretrained, scorer.allow_pickle)
            self.model = open_clip.create_model(
                name,
                pretrained=scorer.pretrained,
                precision=scorer.precision,
                device=self.device,
                require_pretrained=True,
                **options,
            ).eval()
        except (RuntimeError, OSError, ValueError) as error:
            raise ConfigError(
                f"The CLIP model {scorer.source!r} with weights {scorer.pretrained!r} does not "
                f"load ({str(error).splitlines()[0]})."
            ) from error
        self.model.requires_grad_(False)
        self.dtype = dtype_of(scorer.precision)
        preprocess = open_clip.get_model_preprocess_cfg(self.model)
        self.view = _view(preprocess, scorer)
        self._tokenize = load_tokenizer(name, scorer.tokenizer)
        # transformers' tokenizers refuse two threads at once.
        self._tokenizing = threading.Lock()
        self._mean, self._std = (
            torch.tensor(preprocess[name], device=self.device).reshape(1, 3, 1, 1) * 255
            for name in ("mean", "std")
        )
        with torch.inference_mode():
            tokens = self._tokenize(["a"]).to(self.device)
            self.width = int(text_features(self.model, tokens).shape[1])

    @property
    def context_length(self) -> int:
        """Tokens of a text that the model reads, start and end of text included."""
        return int(self._tokenize.context_length)

    def embed_pictures(
        self, pictures: NDArray[np.uint8], batch_size: int = 256
    ) -> NDArray[np.float32]:
        """(N, H, W, 3) uint8 -> (N, D), unit length, on float16's grid.

        Pictures of another size than the model's (S, S) are resized as the model wants it.
        """
        parts = [
            self._embed_batch(pictures[start : start + batch_size])
            for start in range(0, len(pictures), batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.width), np.float32)

    def _embed_batch(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        if pictures.shape[1:3] != (self.view.size, self.view.size):
            pictures = np.stack([model_view(picture, self.view) for picture in pictures])
        with torch.inference_mode():
            # uint8 crosses to the device: a quarter of the traffic of floats; from pinned memory,
            # so that the copy needs no second one on the way.
            batch = torch.from_numpy(pictures)
            if self.device.type == "cuda":
                batch = batch.pin_memory()
            batch = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            normalised = (batch - self._mean) / self._std
            return _unit(picture_features(self.model, normalised.to(self.dtype)))

    def embed_texts(
        self, texts: Sequence[str | None], batch_size: int = 256
    ) -> NDArray[np.float32]:
        """B texts -> (B, D), unit length; a row of NaN where the text is empty or missing."""
        return self.read_texts(texts, batch_size)[0]

    def read_texts(
        self, texts: Sequence[str | None], batch_size: int = 256
    ) -> tuple[NDArray[np.float32], list[int | None]]:
        """Embeddings as `embed_texts`, and how many tokens of each text lie behind the context.

        Equal texts are embedded once.
        """
        import torch

        rows: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            if text is not None and text.strip():
                rows.setdefault(text, []).append(row)
        different = list(rows)
        embedding = np.full((len(texts), self.width), np.nan, np.float32)
        truncated: list[int | None] = [None] * len(texts)
        for start in range(0, len(different), batch_size):
            some = different[start : start + batch_size]
            with self._tokenizing:
                tokens, cut = tokens_of(self._tokenize, some)
            with torch.inference_mode():
                vectors = _unit(text_features(self.model, tokens.to(self.device)))
            for text, vector, left_out in zip(some, vectors, cut, strict=True):
                embedding[rows[text]] = vector
                for row in rows[text]:
                    truncated[row] = left_out
        return embedding, truncated


def _unit(features: torch.Tensor) -> NDArray[np.float32]:
    features = features.float()
    features = features / features.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return np.asarray(features.cpu().numpy().astype(np.float16).astype(np.float32))


def _view(preprocess: Mapping[str, Any], scorer: Clip) -> PictureView:
    size = preprocess["size"]
    if not isinstance(size, int):
        if size[0] != size[1]:
            raise ConfigError(f"The CLIP model {scorer.source!r} wants {size} px, not a square.")
        size = size[0]
    mode, resample = preprocess["resize_mode"], preprocess["interpolation"]
    if mode not in ("shortest", "squash") or resample not in ("bicubic", "bilinear"):
        raise ConfigError(
            f"The CLIP model {scorer.source!r} wants resize mode {mode!r} with {resample!r}; "
            f"supported are shortest and squash with bicubic or bilinear."
        )
    return PictureView(int(size), mode == "squash", resample, scorer.draft)
