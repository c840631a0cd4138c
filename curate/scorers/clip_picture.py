"""CLIP's picture tower, read at its class token alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.scorers.clip_tower import Tower, pack_equal

if TYPE_CHECKING:
    import torch


class PictureTower:
    """The picture side of an open_clip model, by `Tower` where its parts are plain.

    Models with another tower (ResNet, timm) or that pool all positions (SigLIP, CoCa) take
    open_clip's own road.
    """

    def __init__(self, model: Any, dtype: torch.dtype, device: torch.device) -> None:
        """Args: dtype of the weights, as the model was loaded."""
        from open_clip.transformer import VisionTransformer

        self._model, self._dtype = model, dtype
        self._tower: Tower | None = None
        visual = model.visual
        if (
            type(visual) is VisionTransformer
            and visual.attn_pool is None
            and visual.pool_type == "tok"
            and not visual.output_tokens
            and hasattr(visual, "_embeds")
        ):
            blocks = list(visual.transformer.resblocks)
            if Tower.runs(blocks):
                self._tower = Tower(blocks, dtype, device)

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Normalised pictures (B, 3, S, S) -> features (B, D), not normalised."""
        import torch

        if self._tower is None:
            features: torch.Tensor = self._model.encode_image(pictures, normalize=False)
            return features
        visual = self._model.visual
        x = visual._embeds(pictures)
        count, length, _ = x.shape
        x = self._tower(x.flatten(0, 1), pack_equal(count, length, x.device), causal=False)
        x = visual.ln_post(x.to(self._dtype))
        return torch.as_tensor(x if visual.proj is None else x @ visual.proj)
