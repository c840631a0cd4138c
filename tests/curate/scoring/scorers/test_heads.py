from pathlib import Path

import numpy as np
import pytest

from curate.base.errors import ConfigError
from curate.scoring.scorers.head_source import HeadScorer
from curate.scoring.scorers.heads import Head, convert_head
from tests.conftest import REAL_DATA
from tests.curate.tiny import tiny_head

HEADS = REAL_DATA / "heads"
LINEAR = HEADS / "laion_aesthetic_predictor"
MLP = HEADS / "improved_aesthetic_predictor"

# Golden values from the heads' own repositories, on their ten rating vectors.
GOLDEN = {
    "l_14": [-2.458, -0.138, 1.895, 3.585, 5.100, 6.470, 7.787, 9.048, 10.226, 11.304],
    "b_32": [-1.470, 0.273, 1.990, 3.611, 5.087, 6.393, 7.668, 8.915, 9.917, 11.006],
}
GOLDEN_MLP = {
    "sac+logos+ava1-l14-linearMSE": [1.66, 2.36, 3.07, 3.67, 4.24, 4.70, 5.07, 5.37, 5.58, 5.75],
    "ava+logos-l14-linearMSE": [4.51, 4.48, 4.49, 4.60, 4.71, 4.84, 5.00, 5.15, 5.23, 5.27],
    "ava+logos-l14-reluMSE": [4.37, 4.19, 4.05, 4.01, 3.99, 4.02, 4.10, 4.21, 4.27, 4.31],
}


def ratings(model: str) -> np.ndarray:
    return np.concatenate(
        [np.load(LINEAR / f"vit_{model}_embeddings" / f"rating{i}.npy").reshape(1, -1)
         for i in range(10)]
    )  # fmt: skip


@pytest.mark.skipif(not LINEAR.exists(), reason="the published heads are not on this machine")
@pytest.mark.parametrize("model", GOLDEN)
def test_the_published_linear_heads_give_their_golden_values(model: str, tmp_path: Path) -> None:
    source = LINEAR / f"sa_0_4_vit_{model}_linear.pth"
    head = Head.load(convert_head(source, tmp_path / "head.safetensors", allow_pickle=True))
    assert head(ratings(model)) == pytest.approx(GOLDEN[model], abs=1e-3)


@pytest.mark.parametrize("name", GOLDEN_MLP)
def test_the_published_mlps_give_their_golden_values(name: str, tmp_path: Path) -> None:
    if not (MLP / f"{name}.pth").exists():
        pytest.skip(f"the published head {name} is not on this machine")
    activation = "relu" if "relu" in name else "none"
    target = tmp_path / "head.safetensors"
    convert_head(MLP / f"{name}.pth", target, activation=activation, allow_pickle=True)
    # The golden values were printed with two decimals.
    assert Head.load(target)(ratings("l_14")) == pytest.approx(GOLDEN_MLP[name], abs=5.01e-3)


@pytest.mark.skipif(not MLP.exists(), reason="the published heads are not on this machine")
def test_folding_the_published_mlp_changes_nothing(tmp_path: Path) -> None:
    import torch

    source = MLP / "sac+logos+ava1-l14-linearMSE.pth"
    head = Head.load(convert_head(source, tmp_path / "head.safetensors", allow_pickle=True))
    state = torch.load(source, map_location="cpu", weights_only=True)
    value = torch.from_numpy(ratings("l_14")).double()
    for layer in (0, 2, 4, 6, 7):
        weight, bias = (state[f"layers.{layer}.{part}"].double() for part in ("weight", "bias"))
        value = value @ weight.T + bias
    assert len(head.weights) == 1
    assert head(ratings("l_14")) == pytest.approx(value[:, 0].numpy(), abs=1e-4)


def test_a_relu_head_with_a_sigmoid_against_torch(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    path = tiny_head(tmp_path / "head.safetensors", output="sigmoid")
    layers = load_file(path)
    network = torch.nn.Sequential(
        torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1), torch.nn.Sigmoid()
    )
    for index, layer in ((0, network[0]), (1, network[2])):
        layer.weight.data, layer.bias.data = (
            layers[f"layers.{index}.{part}"] for part in ("weight", "bias")
        )
    vectors = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    expected = network(torch.from_numpy(vectors)).detach().numpy()[:, 0]
    assert Head.load(path)(vectors) == pytest.approx(expected, abs=1e-5)


def test_a_row_without_an_embedding_has_no_score(tmp_path: Path) -> None:
    vectors = np.full((2, 16), np.nan, np.float32)
    vectors[0] = 0.25
    scores = Head.load(tiny_head(tmp_path / "head.safetensors"))(vectors)
    assert np.isfinite(scores[0])
    assert np.isnan(scores[1])


def test_a_pickle_needs_leave(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "head.pth"
    torch.save({"weight": torch.ones(1, 4), "bias": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match="pickle"):
        convert_head(path, tmp_path / "head.safetensors")
    head = Head.load(convert_head(path, tmp_path / "head.safetensors", allow_pickle=True))
    assert head(np.ones((1, 4), np.float32)).tolist() == [4]


def test_wrong_files_and_widths_are_refused_in_one_sentence(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    with pytest.raises(ConfigError, match="does not exist"):
        HeadScorer("aesthetic", tmp_path / "none.safetensors")
    save_file({"conv.weight": torch.ones(1, 4, 3)}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="linear layers"):
        Head.load(tmp_path / "a.safetensors")
    save_file({"layers.0.weight": torch.ones(1, 4), "layers.0.bias": torch.ones(1)},
              tmp_path / "b.safetensors")  # fmt: skip
    with pytest.raises(ConfigError, match="activation"):
        Head.load(tmp_path / "b.safetensors")
    with pytest.raises(ConfigError, match="16 numbers"):
        Head.load(tiny_head(tmp_path / "c.safetensors"))(np.ones((1, 8), np.float32))
