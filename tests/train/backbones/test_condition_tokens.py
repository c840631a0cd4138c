"""Scores become tokens beside the caption's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curate.base.errors import ConfigError
from train.backbones import ConditionTokens
from train.protocols import TextFeatures

EDGES = {"aesthetic": [4.0, 5.0, 6.0], "clip_similarity": [0.2, 0.25, 0.3]}


def test_a_token_a_column_that_is_always_seen() -> None:
    tokens = ConditionTokens(2, 4, 8, seed=3)
    text = TextFeatures(torch.randn(3, 5, 8), torch.zeros(3, 5), torch.randn(3, 6))
    buckets = torch.tensor([[0, 0], [1, 4], [3, 0]])
    told = tokens(text, buckets)
    assert torch.equal(told.sequence[:, :5], text.sequence)
    assert torch.equal(told.mask, torch.tensor([[0, 0, 0, 0, 0, 1, 1]] * 3).float())
    assert torch.equal(told.sequence[1, 5], tokens.table[0, 1])
    assert torch.equal(told.sequence[1, 6], tokens.table[1, 4])
    assert told.pooled is text.pooled
    told.sequence.sum().backward()
    assert tokens.table.grad is not None
    assert tokens.table.grad[0, 2].abs().max() == 0
    assert torch.equal(ConditionTokens(2, 4, 8, seed=3).table, tokens.table)
    assert not torch.equal(ConditionTokens(2, 4, 8, seed=4).table, tokens.table)


def test_they_are_saved_with_the_edges_of_their_buckets(tmp_path: Path) -> None:
    tokens = ConditionTokens(2, 4, 8, seed=3)
    path = tmp_path / "conditions.safetensors"
    tokens.save(path, EDGES)
    again = ConditionTokens.load(path)
    assert torch.equal(again.table, tokens.table)
    assert again.edges == EDGES
    assert again.buckets({"aesthetic": 3.9, "clip_similarity": 0.9}) == [1, 4]
    assert again.buckets({"aesthetic": 5.0}) == [3, 0]
    with pytest.raises(ConfigError, match="is not told beauty; it is told aesthetic, clip_sim"):
        again.buckets({"beauty": 1.0})


def test_another_file_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="holds no condition tokens"):
        ConditionTokens.load(tmp_path / "other.safetensors")
