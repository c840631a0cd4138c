"""CLIP's picture tower: from uint8 pixels to an embedding, read at its class token alone.

The first layer is a convolution whose stride is its size: every patch of P x P pixels times one
matrix. Normalisation, (x / 255 - mean) / std, is linear as well, so it is folded into that matrix
and its bias: pixels cross to the device as uint8, patches are cut there, and no float copy of a
picture is ever made. 128 is taken from every pixel first, which keeps the values small and, as
whole numbers from -128 to 127, exact in bf16 and fp16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.scoring.scorers.clip_tower import Tower, linear, pack_equal

if TYPE_CHECKING:
    import torch

_MIDDLE = 128


class PictureTower:
    """The picture side of an open_clip model, by `Tower` where its parts are plain.

    Models with another tower (ResNet, timm) or that pool all positions (SigLIP, CoCa) take
    open_clip's own road.
    """

    def __init__(
        self,
        model: Any,
        dtype: torch.dtype,
        device: torch.device,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        """Args: dtype of the weights, as the model was loaded; mean and std of pixels in 0..1."""
        import torch

        self._model, self._dtype = model, dtype
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(mean, device=device).reshape(shape) * 255
        self._std = torch.tensor(std, device=device).reshape(shape) * 255
        self.plain = _is_plain(model.visual)
        if self.plain:
            visual = model.visual
            self._tower = Tower(list(visual.transformer.resblocks), dtype, device)
            self._patch = int(visual.conv1.kernel_size[0])
            scaled = visual.conv1.weight.float() / self._std
            # (D, 3, P, P) to (D, P * P * 3): the order in which pixels lie in memory.
            weight = scaled.permute(0, 2, 3, 1).flatten(1).to(dtype)
            # From the rounded weight, so that a flat picture of the mean's colour gives nothing.
            centre = (self._mean - _MIDDLE).expand(1, 3, self._patch, self._patch)
            bias = -(weight.float() @ centre.permute(0, 2, 3, 1).flatten())
            if visual.conv1.bias is not None:
                bias = bias + visual.conv1.bias.float()
            self._weight, self._bias = weight, bias.to(dtype)
            self._class = visual.class_embedding.float()
            self._position = visual.positional_embedding.float()

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pixels (B, S, S, 3) uint8 -> features (B, D), not normalised."""
        if not self.plain:
            floats = (pictures.permute(0, 3, 1, 2) - self._mean) / self._std
            features: torch.Tensor = self._model.encode_image(floats.to(self._dtype))
            return features
        import torch

        visual = self._model.visual
        patches = linear(self._patches(pictures), self._weight, self._bias)
        count, length = len(pictures), len(self._position)
        x = self._position.new_empty((count, length, self._position.shape[1]))
        x[:, 0] = self._class + self._position[0]
        x[:, 1:] = patches.view(count, length - 1, -1) + self._position[1:]
        x = visual.ln_pre(x.flatten(0, 1))
        x = self._tower(x, pack_equal(count, length, x.device), causal=False)
        x = visual.ln_post(x.to(self._dtype))
        return torch.as_tensor(x if visual.proj is None else x @ visual.proj)

    def _patches(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, S, S, 3) uint8 -> (B * (S / P)^2, P * P * 3), less 128, in the dtype of products."""
        import torch

        count, side, patch = len(pictures), pictures.shape[1], self._patch
        grid = side // patch
        pictures = pictures[:, : grid * patch, : grid * patch]
        cut = pictures.reshape(count, grid, patch, grid, patch * 3).transpose(2, 3)
        whole = cut.reshape(count * grid * grid, patch * patch * 3)
        # Flipping the highest bit takes 128 away, in two's complement.
        return (whole ^ _MIDDLE).view(torch.int8).to(self._dtype)


def _is_plain(visual: Any) -> bool:
    from open_clip.transformer import VisionTransformer

    return (
        type(visual) is VisionTransformer
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.output_tokens
        and visual.conv1.kernel_size == visual.conv1.stride
        and Tower.runs(list(visual.transformer.resblocks))
    )
