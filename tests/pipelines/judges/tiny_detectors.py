"""Tiny detectors of real architectures: random weights, saved as users save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

NAMES = {0: "dog", 1: "mouse", 2: "cup"}
_SMALL = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
}  # fmt: skip


def _resnet() -> Any:
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def build_detr(folder: Path) -> Path:
    """DETR with three classes on a ResNet of some thousand weights."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

    config = DetrConfig(
        backbone_config=_resnet(), num_queries=8, id2label=NAMES, **_SMALL
    )  # fmt: skip
    processor = DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    return _save(folder, DetrForObjectDetection, config, processor)


def build_mask2former(folder: Path) -> Path:
    """Mask2Former with three classes on a tiny Swin."""
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    swin = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
        window_size=2, out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32,
        encoder_feedforward_dim=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
        dim_feedforward=16, num_queries=6, id2label=NAMES,
    )  # fmt: skip
    processor = Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    return _save(folder, Mask2FormerForUniversalSegmentation, config, processor)


def build_owlv2(folder: Path) -> Path:
    """OWLv2 with a word tokenizer."""
    from transformers import (
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
    )

    tokenizer = _words(["a", "photo", "of", "dog", "cup"], 16)
    small = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    config = Owlv2Config(
        text_config={
            **small, "vocab_size": len(tokenizer), "max_position_embeddings": 16,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        },
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )  # fmt: skip
    processor = Owlv2Processor(Owlv2ImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    return _save(folder, Owlv2ForObjectDetection, config, processor)


def build_grounding_dino(folder: Path) -> Path:
    """Grounding DINO with a tiny BERT."""
    from transformers import (
        BertConfig,
        BertTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    folder.mkdir(parents=True, exist_ok=True)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", "dog", "cup"]
    (folder / "vocab.txt").write_text("\n".join(names) + "\n")
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"))
    bert = BertConfig(
        vocab_size=len(names), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=_resnet(), text_config=bert, num_queries=8, num_feature_levels=4,
        encoder_n_points=2, decoder_n_points=2, max_text_len=16, **{**_SMALL, "d_model": 32},
    )  # fmt: skip
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 64}), tokenizer
    )
    return _save(folder, GroundingDinoForObjectDetection, config, processor)


def _words(words: list[str], longest: int) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<s>", "</s>", "<unk>", *words]
    backend = Tokenizer(
        models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", model_max_length=longest,
    )  # fmt: skip


def _save(folder: Path, model_class: Any, config: Any, processor: Any) -> Path:
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Else every picture gets nearly the same boxes and scores.
            if weight.ndim > 1 and "norm" not in name and "logit" not in name:
                weight.mul_(2.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
