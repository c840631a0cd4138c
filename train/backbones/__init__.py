"""The networks: any of diffusers' transformers and U-Nets, by a row of one table."""

from train.backbones.backbone import (
    DiffusersBackbone,
    build_backbone,
    compile_blocks,
    flops_per_picture,
    load_backbone,
    use_activation_checkpointing,
    use_fast_attention,
)
from train.backbones.conditions import ConditionTokens
from train.backbones.initial import is_hidden_matrix
from train.backbones.rows import ROWS, Row

__all__ = [
    "ROWS",
    "ConditionTokens",
    "DiffusersBackbone",
    "Row",
    "build_backbone",
    "compile_blocks",
    "flops_per_picture",
    "is_hidden_matrix",
    "load_backbone",
    "use_activation_checkpointing",
    "use_fast_attention",
]
