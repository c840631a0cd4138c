"""The small models of the world: where they lie, and in what form.

They go through the same loading roads as published weights.

CLIP, the folder `clip_dir()`, named as on the hub, so open_clip's "local-dir:" schema loads it::

    name = f"local-dir:{clip_dir()}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)

- `open_clip_config.json` (`clip_config_path()`): {"model_cfg": {...}, "preprocess_cfg": {...}};
  `model_cfg.text_cfg.hf_tokenizer_name` is set, which makes open_clip read the tokenizer from the
  folder itself. Input: 64 x 64 px RGB; `preprocess` resizes and normalises.
- `open_clip_model.safetensors` (`clip_weights_path()`): the state dict of `open_clip.CLIP`, fp16.
- `tokenizer.json`, `tokenizer_config.json`: word level (`words.VOCABULARY`), for AutoTokenizer.

Heads, `aesthetic_head_path()` and `nsfw_head_path()`. A stack of linear layers on the L2-normalised
image embedding of that CLIP, as LAION's MLP heads: keys `layers.0.weight` (out, in),
`layers.0.bias` (out,), `layers.1.weight`, ... in order; metadata {"activation": "relu" | "none"
(between layers, never after the last), "output": "score" | "sigmoid"}. The aesthetic head gives a
score (about 1..10, higher is better), the NSFW head a logit whose sigmoid is the probability.

Captioner, the folder `captioner_dir()`: a LLaVA as written by `save_pretrained`, for
`AutoModelForImageTextToText.from_pretrained` and `AutoProcessor.from_pretrained`. So small a model
reads no prose: its chat template turns the user's text into one of two mode tokens. Decode
greedily; both kinds end by themselves.

`manifest.json` holds the sha256 of every file, the command, the seed and the held-out figures.
`python -m pipelines.make_weights.all --out DIR --seed N` trains all of them from nothing. The
captioner that is stored here was made by an earlier recipe than that: word-level tokens, short for
any text that says "main subject" and descriptive for any other, and while training a head beside it
that read the background's style.
"""

from pathlib import Path

from curate.base.files import read_json

WEIGHTS_DIR = Path(__file__).parent / "weights"


def clip_dir() -> Path:
    return WEIGHTS_DIR / "clip"


def clip_config_path() -> Path:
    return clip_dir() / "open_clip_config.json"


def clip_weights_path() -> Path:
    return clip_dir() / "open_clip_model.safetensors"


def aesthetic_head_path() -> Path:
    return WEIGHTS_DIR / "aesthetic_head.safetensors"


def nsfw_head_path() -> Path:
    return WEIGHTS_DIR / "nsfw_head.safetensors"


def captioner_dir() -> Path:
    return WEIGHTS_DIR / "captioner"


def manifest_path() -> Path:
    return WEIGHTS_DIR / "manifest.json"


def family() -> frozenset[str]:
    """sha256 of all of the demo's weights: taught one world, they are no judges of each other."""
    hashes: dict[str, str] = read_json(manifest_path())["sha256"]
    return frozenset(hashes.values())
