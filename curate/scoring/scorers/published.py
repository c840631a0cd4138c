"""Published weights by name: where they lie, their hash, what they are, their authors' threshold.

A hash stands here only where the file itself was at hand to be hashed. Weights without one need it
from the user, as `NAME#sha256=HEX`, or a local file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from curate.base.errors import ConfigError

_RAW = "https://raw.githubusercontent.com"
_AESTHETIC_V1 = f"{_RAW}/LAION-AI/aesthetic-predictor/6d122adad522ab246644d9dc1c6d7a3810ee255f"
_AESTHETIC_V2 = (
    f"{_RAW}/christophschuhmann/improved-aesthetic-predictor/"
    "6934dd81792f086e613a121dbce43082cb8be85e"
)
_NSFW = f"{_RAW}/LAION-AI/CLIP-based-NSFW-Detector/d6bb8fe31fd4aecbfed7dfb62df4fe5858bfc014"
_AESTHETIC_V25 = (
    f"{_RAW}/discus0434/aesthetic-predictor-v2-5/c0e15567fa61252cbff43d70c49a8bd27202ca9a/models"
)
_H14_ACTIVATIONS = "relu,relu,relu,relu,relu,none"


@dataclass(frozen=True)
class Published:
    """One published file.

    Attributes:
        url: where it lies, at a fixed commit where there is one.
        sha256: of its bytes; None where nobody here could hash it.
        kind: "linear" (a stack of linear layers, .pth), "keras" (a SavedModel, .zip) or
            "watermark" (LAION's EfficientNet, .pt).
        clip: the CLIP model whose image embedding it takes; "" where it takes pixels.
        activation, output: of a linear stack, see curate.scoring.scorers.heads.
        rule: what its authors, or those who used it first, kept.
    """

    url: str
    sha256: str | None
    kind: str
    clip: str
    rule: str
    activation: str = "none"
    output: str = "score"

    @property
    def file_name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]

    def hash_or(self, given: str | None, name: str) -> str:
        """The user's hash, or the known one; ConfigError where there is neither."""
        known = given or self.sha256
        if known is None:
            raise ConfigError(
                f"The sha256 of {name} ({self.url}) is not known here; give it as "
                f"{name}#sha256=HEX, or download the file and give its path."
            )
        return known


PUBLISHED: Mapping[str, Published] = {
    "laion-aesthetic-v1-l14": Published(
        f"{_AESTHETIC_V1}/sa_0_4_vit_l_14_linear.pth",
        "2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        "linear",
        "ViT-L-14-quickgelu@openai",
        "aesthetic > 7",
    ),
    "laion-aesthetic-v1-b32": Published(
        f"{_AESTHETIC_V1}/sa_0_4_vit_b_32_linear.pth",
        "c7b14cead230694acc7b9447974d3cad78003c72da032e402a303b6c2429e85f",
        "linear",
        "ViT-B-32-quickgelu@openai",
        "aesthetic > 7",
    ),
    "laion-aesthetic-v1-b16": Published(
        f"{_AESTHETIC_V1}/sa_0_4_vit_b_16_linear.pth",
        "8ad3923d7ecf019df20ecd2ab5542a3075fbba0278d239c0371345f3d7fcbde0",
        "linear",
        "ViT-B-16-quickgelu@openai",
        "aesthetic > 7",
    ),
    "laion-aesthetic-v2": Published(
        f"{_AESTHETIC_V2}/sac%2Blogos%2Bava1-l14-linearMSE.pth",
        "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        "linear",
        "ViT-L-14-quickgelu@openai",
        "aesthetic >= 5",
    ),
    # Five layers, 1152 to 1, with dropout and no activation between them, on the pooled output of
    # SigLIP, L2-normalised (discus0434/aesthetic-predictor-v2-5, siglip_v2_5.py).
    "aesthetic-v2.5": Published(
        f"{_AESTHETIC_V25}/aesthetic_predictor_v2_5.pth",
        "a6caf256b3dc434273c98dcb12f6bf17c5d4fc647d8df11f038386923dd06220",
        "linear",
        "ViT-SO400M-14-SigLIP-384@webli",
        "aesthetic >= 5.5",
    ),
    "laion-nsfw-l14": Published(
        f"{_NSFW}/clip_autokeras_binary_nsfw.zip",
        "905520bb0336accc73ee282c605d926aef90cf14248889d44b9cee50eef71f8a",
        "keras",
        "ViT-L-14-quickgelu@openai",
        "nsfw < 0.5",
    ),
    "laion-nsfw-b32": Published(
        f"{_NSFW}/clip_autokeras_nsfw_b32.zip",
        "78715ab9d64485167e8c9ade3b8e6761a17a16c24d114bd47431ac1dab46462b",
        "keras",
        "ViT-B-32-quickgelu@openai",
        "nsfw < 0.5",
    ),
    # Trained with squared error on 0 and 1: no sigmoid, and values a little outside of 0..1.
    "laion-nsfw-h14": Published(
        f"{_NSFW}/h14_nsfw.pth",
        None,
        "linear",
        "ViT-H-14@laion2b_s32b_b79k",
        "nsfw < 0.5",
        _H14_ACTIVATIONS,
    ),
    "laion-watermark": Published(
        "https://github.com/LAION-AI/LAION-5B-WatermarkDetection/raw/main/models/"
        "watermark_model_v1.pt",
        None,
        "watermark",
        "",
        "watermark < 0.8",
    ),
}


def by_file_name(name: str) -> Published | None:
    """What is known of a local file that has a published one's name."""
    name = name.replace("+", "%2B")
    return next((entry for entry in PUBLISHED.values() if entry.file_name == name), None)
