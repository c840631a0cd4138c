"""One optimizer steps as torch's Muon and torch's AdamW do, each on its own weights."""

import pytest
import torch
from torch import nn

from curate.base.muon import MuonAdamW, orthogonalised


def test_it_steps_as_torchs_muon_and_adamw_do() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 60), (60, 24), (24, 60), (16, 3, 4, 4), (7,), (5, 9)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours = [nn.Parameter(weight.clone()) for weight in start]
    theirs = [nn.Parameter(weight.clone()) for weight in start]
    flat = nn.Parameter(theirs[3].data.flatten(1))  # torch's takes matrices alone
    options = {"weight_decay": 0.1, "betas": (0.9, 0.98)}
    optimizer = MuonAdamW(
        ours[:4], [{"params": ours[4:]}], muon_rate=0.02, adamw_rate=3e-3, **options
    )
    muon = torch.optim.Muon([*theirs[:3], flat], lr=0.02, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs[4:], lr=3e-3, **options)
    for _ in range(3):
        for own, other in zip(ours, theirs, strict=True):
            own.grad = torch.randn(own.shape, generator=generator)
            other.grad = own.grad.clone()
        flat.grad = theirs[3].grad.flatten(1)
        for one in (optimizer, muon, adamw):
            one.step()
    for own, other, begin in zip(ours[:4], theirs[:4], start[:4], strict=True):
        # torch's iteration rounds to bfloat16.
        moved = torch.linalg.vector_norm(other - begin)
        assert torch.linalg.vector_norm(own - other) < 0.02 * moved
    for own, other in zip(ours[4:], theirs[4:], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-7)


def test_a_weight_without_a_gradient_is_left_alone() -> None:
    weights = [nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    optimizer = MuonAdamW(
        weights[:1],
        [{"params": weights[1:]}],
        muon_rate=0.1,
        adamw_rate=0.1,
        betas=(0.9, 0.9),
        weight_decay=0.1,
    )
    optimizer.step()
    assert all(weight.equal(torch.ones(2, 2)) for weight in weights)


@pytest.mark.parametrize("transposed", [False, True])
def test_newton_schulz_brings_singular_values_near_one(transposed: bool) -> None:
    stack = torch.randn((2, 24, 60), generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(stack.mT if transposed else stack))
    assert 0.6 < values.min() < values.max() < 1.3
    fewer = torch.linalg.svdvals(orthogonalised(stack, 1))
    assert fewer.min() < values.min()
