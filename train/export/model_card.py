"""README.md of what a run exports: what it is, and lines that draw with it as they stand."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

from curate.base.telling.words import amount
from train.adapters import embedding_file
from train.sample import scheduler_of
from train.text.new_tokens import extended

if TYPE_CHECKING:
    from train.model import Trained

ENLARGEMENT = 8
"""Models of pixels: the pipeline draws each pixel as a square of this side."""
PROMPT = "a red circle"
_BOTH = ("prompt_embeds", "negative_prompt_embeds")
_POOLED = (*_BOTH, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_MASKED = (
    "prompt_embeds",
    "prompt_attention_mask",
    "negative_prompt_embeds",
    "negative_prompt_attention_mask",
)
_ENCODED = {
    "StableDiffusionPipeline": _BOTH,
    "StableDiffusionXLPipeline": _POOLED,
    "StableDiffusion3Pipeline": _POOLED,
    "PixArtAlphaPipeline": _MASKED,
    "PixArtSigmaPipeline": _MASKED,
    "SanaPipeline": _MASKED,
}
"""What each pipeline's encode_prompt gives, by the names that its call takes."""


def call_arguments(trained: Trained) -> dict[str, Any]:
    """What the exported pipeline must be told beside the prompt, to draw as `generate` does."""
    import diffusers

    settings, config = trained.settings, trained.config
    name = trained.model.backbone.pipeline
    accepted = signature(getattr(diffusers, name).__call__).parameters
    side = config.resolution * (ENLARGEMENT if trained.model.latents.factor == 1 else 1)
    long_text = [text for text in config.text if text.kind != "clip"]
    wanted: dict[str, Any] = {
        "num_inference_steps": settings.sampling_steps,
        "guidance_scale": settings.guidance_scale,
        "height": side,
        "width": side,
        # Sizes as they are asked for, and the caption as it is written.
        "use_resolution_binning": False,
        "clean_caption": False,
        "skip_text_cleaning": True,
    }
    if long_text:
        wanted["max_sequence_length"] = long_text[-1].tokens
        wanted["tokenizer_max_length"] = long_text[-1].tokens
        template = long_text[-1].template
        wanted["complex_human_instruction"] = [template.partition("{}")[0]] if template else None
    elif name == "StableDiffusion3Pipeline":
        # In the place of its third encoder it would put that many zeros.
        wanted["max_sequence_length"] = 0
    if "true_cfg_scale" in accepted and not _reads_scale(trained):
        # The pipeline's guidance_scale is for networks that are told it.
        del wanted["guidance_scale"]
        wanted |= {"negative_prompt": "", "true_cfg_scale": settings.guidance_scale}
    if name == "StableDiffusionXLPipeline":
        # Else it may put zeros in the place of the empty caption.
        wanted["negative_prompt"] = ""
    clip = [text for text in config.text if text.kind == "clip"]
    if name == "StableDiffusionPipeline" and clip and clip[0].layer != -1:
        wanted["clip_skip"] = -1 - clip[0].layer
    return {name: value for name, value in wanted.items() if name in accepted}


def pipeline_card(trained: Trained) -> str:
    """The card of a whole pipeline."""
    absent = "".join(f", {name}=None" for name in absent_parts(trained))
    pixels = trained.model.latents.factor == 1
    side = trained.config.resolution
    enlarged = f"""
Each of the model's pixels is drawn as a square of {ENLARGEMENT} x {ENLARGEMENT}: \
`picture.resize(({side}, {side}), 0)` gives them back.
"""
    return f"""{_front_matter(trained)}
# A text-to-image model of {side} x {side} pixels

```python
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained("."{absent})  # this folder
{_draw(trained, PROMPT)}
```

Steps and guidance are those that the run itself sampled with.
{enlarged if pixels else ""}{_scores(trained)}{_training(trained)}"""


def adapter_card(trained: Trained) -> str:
    """The card of low-rank adapters or learned embeddings, that stand beside their base."""
    import diffusers

    settings, part = trained.settings, trained.model.backbone.row.part
    absent = "".join(f", {name}=None" for name in absent_parts(trained))
    scheduler, prompt = type(scheduler_of(trained)).__name__, PROMPT
    if settings.new_tokens:
        what, prompt = "Learned embeddings", f"a picture of {next(iter(settings.new_tokens))}"
        load = _embedding_lines(trained)
    elif hasattr(getattr(diffusers, trained.model.backbone.pipeline), "load_lora_weights"):
        what = f"Low-rank adapters of rank {settings.lora_rank}"
        load = 'pipe.load_lora_weights(".")'
    else:
        what = f"Low-rank adapters of rank {settings.lora_rank}"
        load = f"""from peft import PeftModel
pipe.{part} = PeftModel.from_pretrained(pipe.{part}, ".")"""
    return f"""{_front_matter(trained)}
# {what} for {settings.init_from}

```python
from diffusers import DiffusionPipeline, {scheduler}
pipe = DiffusionPipeline.from_pretrained({trained.config.source!r}{absent})
pipe.scheduler = {scheduler}.from_pretrained("scheduler")  # of this folder
{load}
{_draw(trained, prompt)}
```

Steps and guidance are those that the run itself sampled with.
{_scores(trained)}{_training(trained)}"""


def absent_parts(trained: Trained) -> list[str]:
    """Parts that the pipeline's class asks for by name when it is loaded, and that there are not.

    Stable Diffusion 3 without its third encoder; a safety checker needs no naming.
    """
    if trained.model.backbone.pipeline != "StableDiffusion3Pipeline":
        return []
    own = trained.model.text.parts()
    return [
        f"{part}{number}"
        for number in ("", "_2", "_3")
        for part in ("text_encoder", "tokenizer")
        if f"{part}{number}" not in own
    ]


def _reads_scale(trained: Trained) -> bool:
    return bool(trained.model.backbone.config.get("guidance_embeds"))


def _draw(trained: Trained, prompt: str) -> str:
    return f"picture = pipe({prompt!r}{_written(call_arguments(trained))}).images[0]"


def _scores(trained: Trained) -> str:
    """How to ask for scores: their tokens stand behind those of the text."""
    import diffusers

    columns, buckets = trained.settings.condition_on, trained.settings.condition_buckets
    if not columns:
        return ""
    name = trained.model.backbone.pipeline
    about = f"""
## Scores that it is told

{", ".join(columns)}, each in {buckets} buckets, from 1 (low) to {buckets} (high); 0 = not told.
`conditions.safetensors` holds one text token for each.
"""
    if name not in _ENCODED:
        return about
    call = call_arguments(trained)
    wanted = {
        **call,
        "device": "cpu",
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": trained.settings.guidance_scale > 1,
        "negative_prompt": "",
        "prompt_2": None,
        "prompt_3": None,
    }
    accepted = signature(getattr(diffusers, name).encode_prompt).parameters
    encode = _written({key: value for key, value in wanted.items() if key in accepted})
    draw = _written({**call, "negative_prompt": None})
    return f"""{about}
```python
import torch
from safetensors.torch import load_file
table = load_file("conditions.safetensors")["table"]  # (scores, 1 + {buckets}, width)
names = {_ENCODED[name]!r}
text = dict(zip(names, pipe.encode_prompt({PROMPT!r}{encode})))
asked = {[buckets] * len(columns)}  # {", ".join(columns)}
for name, chosen in (("prompt_embeds", asked), ("negative_prompt_embeds", [0] * len(asked))):
    if text[name] is not None:
        tokens = table[range(len(asked)), chosen][None]
        text[name] = torch.cat([text[name], tokens], 1)
    mask = name.replace("embeds", "attention_mask")
    if text.get(mask) is not None:
        text[mask] = torch.cat([text[mask], text[mask].new_ones(1, len(asked))], 1)
picture = pipe(**text{draw}).images[0]
```
"""


def _written(arguments: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in arguments.items())


def _embedding_lines(trained: Trained) -> str:
    lines = ["from safetensors.torch import load_file"]
    for part in extended(trained.model.text):
        tokenizer = part.replace("text_encoder", "tokenizer")
        where = f", text_encoder=pipe.{part}, tokenizer=pipe.{tokenizer}"
        lines += [
            f"for token, vectors in load_file({embedding_file(part)!r}).items():",
            f"    pipe.load_textual_inversion({{token: vectors}}{where})",
        ]
    return "\n".join(lines)


def _front_matter(trained: Trained) -> str:
    """What the hub reads (huggingface.co/docs/hub/model-cards)."""
    settings = trained.settings
    lines = ["library_name: diffusers", "pipeline_tag: text-to-image"]
    tags = ["text-to-image", "caption-lab"]
    base = settings.init_from
    if base is not None and base.count("/") == 1 and not base.startswith((".", "/", "~")):
        adapter = settings.lora_rank or settings.new_tokens
        lines += [
            f"base_model: {base}",
            f"base_model_relation: {'adapter' if adapter else 'finetune'}",
        ]
    tags += ["lora"] * bool(settings.lora_rank) + ["textual_inversion"] * bool(settings.new_tokens)
    return "\n".join(["---", *lines, f"tags: [{', '.join(tags)}]", "---", ""])


def _training(trained: Trained) -> str:
    settings, side = trained.settings, trained.config.resolution
    blend = ", ".join(f"{share:.4g} {kind}" for kind, share in settings.captions.items() if share)
    if settings.missing_captions == "fallback":
        blend += ", where a picture has it, else its kind of the largest share"
    predicts = (
        "" if settings.objective == "edm" else f", prediction type {settings.prediction_type}"
    )
    shape = f"buckets of about {side}**2" if settings.aspect_buckets else f"{side} x {side}"
    licence = (
        f"The base model's licence and its terms hold for this model too: look them up at "
        f"{settings.init_from}."
        if settings.init_from
        else "The run was started from nothing; the licence is its maker's to name."
    )
    return f"""
## Training

| | |
|---|---|
| started from | {settings.init_from or "nothing"} |
| captions | {blend}; {settings.prompt_dropout_prob:.4g} of the draws without one |
| pictures seen | {settings.steps * settings.batch_size:,} ({amount(settings.steps, "step")} of \
{settings.batch_size}) |
| resolution | {shape} pixels |
| objective | {settings.objective}{predicts} |
| sampler | {settings.sampler}, {settings.sampling_steps} steps, guidance \
{settings.guidance_scale:.4g} |
| published weights | averaged over steps (decay {settings.ema_decay:.4g}), float32 |

{licence}
"""
