"""Each network is asked what its diffusers pipeline asks it, number for number."""

import inspect
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from tests.train.backbones.tiny_networks import (
    POOLED_WIDTH,
    SIDE,
    TEXT_WIDTH,
    TINY,
    pooled_width,
    tiny_backbone,
)
from train.protocols import TextFeatures

PIXELS = 8 * SIDE
WORDS = 9
GUIDANCE = 3.5


class Recorded:
    """What a network was given and gave, call by call; arguments that are not used left out."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.given: list[dict[str, Any]] = []
        self.gave: list[Any] = []
        names = list(inspect.signature(network.forward).parameters)

        def record(_: object, args: tuple, kwargs: dict, output: tuple) -> None:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            self.given.append({k: v for k, v in given.items() if v is not None and v != {}})
            self.gave.append([each.clone() for each in output[0]])

        network.register_forward_hook(record, with_kwargs=True)


def texts(name: str) -> dict[str, TextFeatures]:
    """A prompt, and what guidance leads away from."""
    generator = torch.Generator().manual_seed(5)
    features = {}
    for key, seen in (("prompt", 6), ("negative_prompt", 2)):
        mask = torch.ones(1, WORDS)
        if tiny_backbone(name).row.masked:
            mask[:, seen:] = 0
        sequence = torch.randn(1, WORDS, TEXT_WIDTH, generator=generator)
        pooled = torch.randn(1, POOLED_WIDTH, generator=generator) if pooled_width(name) else None
        features[key] = TextFeatures(sequence, mask, pooled)
    return features


def pipeline_arguments(name: str, features: dict[str, TextFeatures], accepted: Any) -> dict:
    """The texts as that pipeline takes them."""
    given: dict[str, Any] = {"use_resolution_binning": False, "true_cfg_scale": 2.0}
    for key, text in features.items():
        negative = "" if key == "prompt" else "negative_"
        seen = text.mask.bool()
        given[key] = None
        given[f"{key}_embeds"] = [text.sequence[0][seen[0]]] if name == "z-image" else text.sequence
        given[f"{key}_attention_mask"] = seen if name == "prx" else text.mask
        given[f"{key}_embeds_mask"] = seen
        given[f"{negative}pooled_prompt_embeds"] = text.pooled
    return {key: each for key, each in given.items() if key in accepted}


def as_pictures(name: str, pipeline: Any, x: Any) -> Tensor:
    """What a network is given or gives as (B, C, h, w), unpacked by its own pipeline."""
    if name == "z-image":
        return torch.stack(list(x)).squeeze(2)
    x = x if isinstance(x, Tensor) else torch.stack(x)
    if name == "flux2":
        ids = pipeline._prepare_latent_ids(torch.empty(len(x), 1, SIDE // 2, SIDE // 2))
        return pipeline._unpatchify_latents(pipeline._unpack_latents_with_ids(x, ids))
    if hasattr(pipeline, "_unpack_latents"):
        x = pipeline._unpack_latents(x, PIXELS, PIXELS, 8)
    return x.squeeze(2)


def joined(first: TextFeatures, second: TextFeatures) -> TextFeatures:
    """Both as one batch."""
    pooled = None if first.pooled is None else torch.cat([first.pooled, second.pooled])
    return TextFeatures(
        torch.cat([first.sequence, second.sequence]), torch.cat([first.mask, second.mask]), pooled
    )


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal values, whatever the type that they stand in."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, Tensor):
        assert torch.equal(ours.double(), theirs.double().expand_as(ours))
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", TINY)
def test_the_network_is_called_as_its_pipeline_calls_it(name: str) -> None:
    backbone = tiny_backbone(name)
    pipeline_class = getattr(diffusers, backbone.pipeline)
    flow = backbone.row.part != "unet" and backbone.row.network != "PixArtTransformer2DModel"
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler() if flow else diffusers.DDIMScheduler()
    accepted = inspect.signature(pipeline_class.__init__).parameters
    given = {key: None for key, each in accepted.items() if each.default is each.empty}
    given |= {"scheduler": scheduler, backbone.row.part: backbone.inner}
    del given["self"]
    if "requires_safety_checker" in accepted:
        given["requires_safety_checker"] = False
    pipeline = pipeline_class(**given)
    pipeline.set_progress_bar_config(disable=True)
    features = texts(name)
    theirs = Recorded(backbone.inner)
    pipeline(
        height=PIXELS,
        width=PIXELS,
        num_inference_steps=2,
        guidance_scale=GUIDANCE,
        output_type="latent",
        **pipeline_arguments(name, features, inspect.signature(pipeline_class.__call__).parameters),
    )

    prompt, negative = features["prompt"], features["negative_prompt"]
    per_step = len(theirs.given) // 2
    assert per_step == (2 if name in ("flux", "flux-told", "qwen-image") else 1)
    for call, arguments in enumerate(theirs.given.copy()):
        x = as_pictures(name, pipeline, next(iter(arguments.values())))
        text = joined(prompt, negative) if name == "z-image" else joined(negative, prompt)
        if len(x) == 1:
            text = (prompt, negative)[call % per_step]
        time = scheduler.timesteps[call // per_step].float().expand(len(x))
        size_ids = torch.tensor([[PIXELS, PIXELS, 0, 0, PIXELS, PIXELS]] * len(x)).float()
        output = backbone(x, time, text, size_ids, GUIDANCE)

        assert_same(theirs.given[-1], arguments)
        expected = as_pictures(name, pipeline, theirs.gave[call])
        assert output.abs().max() > 0
        assert torch.equal(output, -expected if name == "z-image" else expected[:, :4])
