"""Nothing in a step reads a value back: all of it runs on tensors that have none."""

import pytest
import torch
from torch import nn

from tests.train.objectives.gaussian import objective
from train.optimizer import Optimizer
from train.settings import TrainSettings

OBJECTIVES = [
    {"objective": "flow", "prediction_type": "sample", "loss_weighting": "velocity"},
    {"objective": "flow", "prediction_type": "velocity", "discrete_flow_shift": 3.0},
    {"objective": "ddpm", "prediction_type": "epsilon", "snr_gamma": 5.0},
    {"objective": "ddpm", "prediction_type": "v_prediction", "zero_terminal_snr": True},
    {"objective": "edm"},
]


@pytest.mark.parametrize("settings", OBJECTIVES)
def test_an_objective_reads_nothing_back(settings: dict) -> None:
    own = objective(**settings)
    normal, uniform = torch.empty(4, device="meta"), torch.empty((2, 4), device="meta")
    x0, noise = torch.empty((2, 4, 3, 8, 8), device="meta")
    t = own.times(normal, uniform)
    x_t = own.noised(x0, noise, t)
    shown, told = own.model_input(x_t, t), own.model_time(t)
    assert told.dtype == torch.float32
    output = (shown + told.view(-1, 1, 1, 1)).bfloat16()
    loss = own.loss(output, x0, noise, x_t, t)
    assert (loss.shape, loss.dtype, loss.device.type) == ((4,), torch.float32, "meta")
    assert own.predicted_x0(output, x_t, t).shape == x0.shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_the_optimizer_reads_nothing_back(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6)).to("meta")
    settings = TrainSettings(model="tiny-test", weight_decay=0.1)
    optimizer = Optimizer(
        dict(model.named_parameters()), settings, lambda name, weight: name == "1.weight"
    )
    model.to(dtype)
    for step in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        norm = optimizer.step(step, 0.5)
    assert (norm.shape, norm.device.type) == ((), "meta")
