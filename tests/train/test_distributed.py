"""Several processes make the steps of one: DDP and FSDP over gloo, killed, resumed by fewer."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from curate.base.errors import ConfigError
from curate.base.files import read_json
from curate.store.dataset import Dataset
from tests.train import ranks, roads
from tests.train.tiny_run import CAPTIONS, loop, small, tiny
from train.data.loader import open_data
from train.data.receipt import check_receipt, write_receipt
from train.distributed import ALONE, Ranks
from train.run import train
from train.sample import generate
from train.settings import model_config
from train.text import build_text

OPTIONS: dict[str, Any] = {"steps": 6, "batch_size": 8, "checkpoint_every": 3, "validate_every": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one, two and four processes, in folders named so."""
    folder = tmp_path_factory.mktemp("ranks")
    data = small(folder / "data")
    loop(data, folder / "1", **OPTIONS)
    half = {**OPTIONS, "stop_after": 4}
    ranks.run(
        2,
        ranks.loops,
        data,
        [
            (folder / "2", OPTIONS),
            (folder / "2-in-parts", {**OPTIONS, "gradient_accumulation_steps": 2}),
            (folder / "2-fsdp", {**OPTIONS, "strategy": "fsdp"}),
            (folder / "2-fsdp-bf16", {**OPTIONS, "strategy": "fsdp", "precision": "bf16"}),
            (folder / "killed", half),
            (folder / "killed-fsdp", {**half, "strategy": "fsdp"}),
        ],
    )
    ranks.run(4, ranks.loops, data, [(folder / "4", OPTIONS)])
    return folder


def losses(folder: Path, table: str = "metrics") -> Any:
    return np.array(pq.read_table(folder / f"{table}.parquet").column("loss").to_pylist())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "00000006.safetensors")


@pytest.mark.parametrize("several", ["2", "4", "2-in-parts", "2-fsdp"])
def test_several_processes_have_the_losses_of_one(runs: Path, several: str) -> None:
    np.testing.assert_allclose(losses(runs / several), losses(runs / "1"), rtol=1e-5)
    np.testing.assert_allclose(
        losses(runs / several, "validation"), losses(runs / "1", "validation"), rtol=1e-4
    )
    theirs = weights(runs / several)
    for name, tensor in weights(runs / "1").items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_a_sharded_model_computes_in_bf16(runs: Path) -> None:
    found, exact = losses(runs / "2-fsdp-bf16"), losses(runs / "1")
    np.testing.assert_allclose(found, exact, rtol=2e-2)
    assert (found[1:] != exact[1:]).all()  # the first step starts from an output of 0


def test_the_receipt_is_that_of_one_process(runs: Path) -> None:
    settings, data = tiny(**OPTIONS), Dataset.open(runs / "data")
    config = model_config(settings)
    opened = open_data(data, settings, config, build_text(config, CAPTIONS), "all")
    loop(data, runs / "killed-twice", **{**OPTIONS, "stop_after": 2})
    ranks.run(2, ranks.loops, data, [(runs / "killed-twice", {**OPTIONS, "stop_after": 5})])
    loop(data, runs / "killed-twice", **OPTIONS)
    receipts = []
    for name in ("1", "2", "4", "2-in-parts", "2-fsdp", "killed-twice"):
        write_receipt(opened, runs / name / "receipt.parquet", 6)
        receipts.append(pq.read_table(runs / name / "receipt.parquet"))
    assert receipts[0].column("draws").to_numpy().sum() == 48
    assert all(receipt.equals(receipts[0]) for receipt in receipts)


def test_whole_runs_of_two_processes_leave_what_one_leaves(tmp_path: Path, runs: Path) -> None:
    data, settings = Dataset.open(runs / "data"), tiny(steps=4, grid_size=2)
    one = train(data, settings, tmp_path / "one", "all")
    lora = {"init_from": str(tmp_path / "one"), "lora_rank": 2, "strategy": "fsdp"}
    adapted = tiny(steps=4, grid_size=2, **lora)
    train(data, adapted, tmp_path / "lora", "all")
    ranks.run(
        2,
        ranks.trains,
        data,
        [
            (tmp_path / "ddp", settings),
            (tmp_path / "fsdp", settings.model_copy(update={"strategy": "fsdp"})),
            (tmp_path / "lora-fsdp", adapted),
        ],
    )
    for name, like in {"ddp": "one", "fsdp": "one", "lora-fsdp": "lora"}.items():
        assert not check_receipt(tmp_path / name)
        np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / like), rtol=1e-4)
        drawn = [
            generate(roads.exactly(tmp_path / run), ["red"], seed=1).astype(int)
            for run in (name, like)
        ]
        assert np.abs(drawn[0] - drawn[1]).max() <= 1
    assert sorted(path.name for path in (tmp_path / "ddp").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
    assert one.parameters == read_json(tmp_path / "fsdp" / "summary.json")["parameters"]


@pytest.mark.parametrize("killed", ["killed", "killed-fsdp"])
def test_what_two_processes_began_one_ends(runs: Path, killed: str) -> None:
    _, state = loop(Dataset.open(runs / "data"), runs / killed, **OPTIONS)
    assert state.step == 6
    np.testing.assert_allclose(losses(runs / killed), losses(runs / "1"), rtol=1e-5)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    assert ALONE.share(tiny(batch_size=7)) == 7
    with pytest.raises(ConfigError, match="does not divide into 2 processes times"):
        Ranks(0, 2).share(tiny(batch_size=8, gradient_accumulation_steps=8))


def test_launchers_that_say_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Ranks.join("cpu") == ALONE
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="must be numbers"):
        Ranks.join("cpu")
