"""The presets themselves. Every threshold stands in the source that its preset names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

B32 = "ViT-B-32/openai"
L14 = "ViT-L-14/openai"


@dataclass(frozen=True)
class Need:
    """A quantity that a recipe speaks of.

    `columns`: those that may stand for it, the best first. `model`: the CLIP model without which
    the recipe's threshold means nothing. `advice`: how to get the quantity, after "...; ".
    """

    quantity: str
    meaning: str
    columns: tuple[str, ...]
    advice: str
    model: str | None = None


@dataclass(frozen=True)
class Preset:
    """A recipe: `rule` is SQL with {quantity} and {number} in place of columns and numbers."""

    name: str
    about: str
    rule: str
    source: str
    needs: tuple[Need, ...]
    values: Mapping[str, float] = field(default_factory=dict)


_SIMILARITY_B32 = Need(
    "similarity_b32",
    "the CLIP similarity of picture and alt text",
    (
        *("clip_similarity", "clip_similarity_b32", "imported_clip_b32_similarity_score"),
        *("imported_clip_similarity_vitb32", "imported_similarity"),
    ),
    "score with --more-clips b32=ViT-B-32-quickgelu@openai",
    B32,
)
_SIMILARITY_L14 = Need(
    "similarity_l14",
    "the CLIP similarity of picture and alt text",
    (
        *("clip_similarity", "clip_similarity_l14", "imported_clip_l14_similarity_score"),
        "imported_clip_similarity_vitl14",
    ),
    "score with --more-clips l14=ViT-L-14-quickgelu@openai",
    L14,
)
_LANGUAGE = Need(
    "language",
    "the language of the alt text",
    ("text_language_guess", "text_language", "language", "imported_language"),
    "score with `caplab score`",
)
_AESTHETIC = Need(
    "aesthetic",
    "the aesthetic score of LAION's second predictor (sac+logos+ava1, on CLIP ViT-L/14)",
    (
        *("aesthetic_v2", "aesthetic", "imported_aesthetic_score_laion_v2"),
        *("imported_aesthetic_score_v2", "imported_aesthetic_score"),
    ),
    "score with --aesthetic-head laion-aesthetic-v2",
)
_AESTHETIC_V1 = Need(
    "aesthetic_v1",
    "the aesthetic score of LAION's first predictor (linear, on CLIP ViT-L/14)",
    ("aesthetic_v1", "imported_prediction"),
    "score with --more-heads aesthetic_v1=laion-aesthetic-v1-l14",
)
_UNSAFE = Need(
    "unsafe",
    "the probability that the picture is unsafe",
    ("nsfw", "imported_punsafe"),
    "score with --nsfw-head laion-nsfw-l14",
)
_WATERMARK = Need(
    "watermark",
    "the probability of a watermark",
    ("watermark", "imported_pwatermark", "imported_watermark_score"),
    "score with --watermark-model",
)
_NEAR_REFERENCE = Need(
    "near_reference",
    "to know which pictures are like a reference set",
    ("near_reference",),
    "say --reference EMBEDDINGS, or --preset-columns \"near_reference=in_selection('NAME')\" for "
    "a selection of yours",
)
_FIT_AMONG_OTHERS = Need(
    "neg_clip_loss",
    "negCLIPLoss of picture and alt text",
    ("neg_clip_loss",),
    "score with --neg-clip-loss model",
)
_WORDS = Need(
    "words",
    "the number of words of the alt text",
    ("text_words", "imported_word_count"),
    "score it with `caplab curate`",
)

_LAION_400M = (
    "Schuhmann et al., LAION-400M: Open Dataset of CLIP-Filtered 400 Million Image-Text Pairs, "
    "2021 (arXiv 2111.02114): alt texts under 5 characters and files under 5 KB dropped, ViT-B/32 "
    "cosine of at least 0.3"
)
_LAION_5B = (
    "Schuhmann et al., LAION-5B: An open large-scale dataset for training next generation "
    "image-text models, 2022 (arXiv 2210.08402): the same with a cosine of at least 0.28 for "
    "English by cld3, 0.26 (a multilingual CLIP) for other languages"
)
_AESTHETICS_V1 = (
    "LAION-AI/laion-datasets, laion-aesthetic.md: LAION-Aesthetics V1 above 7 (120M pairs), "
    "laion-art above 8 (8M), with pwatermark < 0.8 and punsafe < 0.5"
)
_AESTHETICS_V2 = (
    "LAION-Aesthetics V2 (laion.ai/blog/laion-aesthetics): improved predictor, subsets from 4.5, "
    "4.75, 5, 6, 6.25 and 6.5 on"
)
_SD1 = (
    "Stable Diffusion v1-2 model card, laion-improved-aesthetics: original size at least "
    "512 x 512, aesthetic score above 5, watermark probability below 0.5"
)
_SD2 = (
    "Stable Diffusion v2-base model card: LAION-NSFW at punsafe = 0.1, aesthetic score of at least "
    "4.5, then pictures of at least 512 x 512"
)
_DATACOMP = (
    "Gadre et al., DataComp: In search of the next generation of multimodal datasets, 2023 (arXiv "
    "2304.14108), and mlfoundations/datacomp, baselines/apply_filter.py"
)

_NEG_CLIP_LOSS = (
    "Wang et al., CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive "
    "Learning, 2024 (arXiv 2405.19547): the best 30% of DataComp-medium by negCLIPLoss of OpenAI's "
    "ViT-L/14, batches of 32,768, 10 divisions, temperature 0.01"
)

_SIZE_512 = "original_width >= {min_side} AND original_height >= {min_side}"
_LONG_ENOUGH = "length(alt_text) >= {characters} AND original_bytes >= {bytes}"
_LONG_ENOUGH_VALUES = {"characters": 5, "bytes": 5000}
_DATACOMP_TOP = "datacomp_top_fraction({similarity_l14}, {fraction})"
_DATACOMP_IMAGE = "{language} = 'en' AND {words} > 1 AND length(alt_text) > 5 AND {near_reference}"

_ALL = (
    Preset(
        "laion-400m",
        "pairs whose text fits the picture, of any language",
        _LONG_ENOUGH + " AND {similarity_b32} >= {similarity}",
        _LAION_400M,
        (_SIMILARITY_B32,),
        {**_LONG_ENOUGH_VALUES, "similarity": 0.3},
    ),
    Preset(
        "laion-5b-en",
        "English pairs whose text fits the picture",
        _LONG_ENOUGH + " AND {language} = 'en' AND {similarity_b32} >= {similarity}",
        _LAION_5B,
        (_LANGUAGE, _SIMILARITY_B32),
        {**_LONG_ENOUGH_VALUES, "similarity": 0.28},
    ),
    Preset(
        "laion-aesthetics",
        "good-looking pictures; aesthetic=4.5, 4.75, 5, 6, 6.25 or 6.5 are the published subsets",
        "{aesthetic} >= {minimum}",
        _AESTHETICS_V2,
        (_AESTHETIC,),
        {"minimum": 4.5},
    ),
    Preset(
        "laion-aesthetics-v1",
        "good-looking pictures by the first predictor; minimum=8 is laion-art",
        "{aesthetic_v1} > {minimum} AND {watermark} < {watermark_below} AND {unsafe} < "
        "{unsafe_below}",
        _AESTHETICS_V1,
        (_AESTHETIC_V1, _WATERMARK, _UNSAFE),
        {"minimum": 7, "watermark_below": 0.8, "unsafe_below": 0.5},
    ),
    Preset(
        "sd1-aesthetics",
        "what Stable Diffusion 1.2 to 1.5 were tuned on (laion-improved-aesthetics)",
        _SIZE_512 + " AND {aesthetic} > {minimum} AND {watermark} < {watermark_below}",
        _SD1,
        (_AESTHETIC, _WATERMARK),
        {"min_side": 512, "minimum": 5, "watermark_below": 0.5},
    ),
    Preset(
        "sd2-base",
        "what Stable Diffusion 2-base was trained on; min_side=0 is its first stage at 256 px",
        "{unsafe} < {unsafe_below} AND {aesthetic} >= {minimum} AND " + _SIZE_512,
        _SD2,
        (_UNSAFE, _AESTHETIC),
        {"unsafe_below": 0.1, "minimum": 4.5, "min_side": 512},
    ),
    Preset(
        "datacomp-basic",
        "DataComp's basic filter: English, a few words, no tiny or narrow picture",
        "{language} = 'en' AND {words} > 2 AND length(alt_text) > 5 AND "
        "least(original_width, original_height) >= {min_side} AND "
        "greatest(original_width, original_height) / least(original_width, original_height) <= "
        "{max_aspect}",
        _DATACOMP,
        (_LANGUAGE, _WORDS),
        {"min_side": 200, "max_aspect": 3},
    ),
    Preset(
        "datacomp-clip",
        "DataComp's CLIP filter: the top fraction by ViT-L/14",
        _DATACOMP_TOP,
        _DATACOMP,
        (_SIMILARITY_L14,),
        {"fraction": 0.3},
    ),
    Preset(
        "neg-clip-loss",
        "pairs that fit each other better than others: the top fraction by negCLIPLoss",
        "top_fraction({neg_clip_loss}, {fraction})",
        _NEG_CLIP_LOSS,
        (_FIT_AMONG_OTHERS,),
        {"fraction": 0.3},
    ),
    Preset(
        "datacomp-clip-b32",
        "DataComp's CLIP filter by a threshold on ViT-B/32",
        "{similarity_b32} >= {similarity}",
        _DATACOMP,
        (_SIMILARITY_B32,),
        {"similarity": 0.25},
    ),
    Preset(
        "datacomp-laion-2b",
        "DataComp's reproduction of LAION-2B: English by cld3 and ViT-B/32",
        "{language} = 'en' AND {similarity_b32} >= {similarity}",
        _DATACOMP,
        (_LANGUAGE, _SIMILARITY_B32),
        {"similarity": 0.28},
    ),
    Preset(
        "datacomp-image",
        "DataComp's image-based filter: English, not empty, in a cluster near a reference set",
        _DATACOMP_IMAGE,
        _DATACOMP,
        (_LANGUAGE, _WORDS, _NEAR_REFERENCE),
    ),
    Preset(
        "datacomp-1b",
        "DataComp-1B's recipe: image-based and the top fraction by ViT-L/14 of the whole pool",
        f"{_DATACOMP_IMAGE} AND {_DATACOMP_TOP}",
        _DATACOMP,
        (_LANGUAGE, _WORDS, _NEAR_REFERENCE, _SIMILARITY_L14),
        {"fraction": 0.3},
    ),
)
PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in _ALL}
