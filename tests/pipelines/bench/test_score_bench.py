"""The parts of `caplab bench score`, with a CLIP that runs in microseconds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from curate.base.errors import ConfigError
from curate.store.dataset import Dataset
from curate.store.shards import iter_shard
from pipelines.bench.common.packed_pictures import pack_pairs
from pipelines.bench.common.processes import ProcessCost
from pipelines.bench.score.bare_forward import best_forward, encode_trimmed
from pipelines.bench.score.beside_peers import agreement, costs_beside, throughput
from pipelines.bench.score.on_gpu import GpuRun, gpu_figures, pair_flops
from pipelines.bench.score.random_clip import write_model
from pipelines.bench.score.runs import as_files
from tests.curate.tiny import drawn, encoded

NAME = "tiny-of-the-score-bench"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory):
    import open_clip

    folder = tmp_path_factory.mktemp("model")
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{NAME}.json")
    return write_model(folder, NAME)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures; every third has no text."""
    place = tmp_path_factory.mktemp("pairs")
    lines = []
    for number in range(12):
        (place / f"{number}.png").write_bytes(encoded(drawn(number, 80, 60)))
        text = None if number % 3 == 2 else f"picture &amp; Number {number}, naïve"
        lines.append(json.dumps({"image": f"{number}.png", "alt": text}))
    (place / "captions.jsonl").write_text("\n".join(lines))
    return place


def test_the_hugging_face_form_is_the_same_function(tiny) -> None:
    import open_clip
    from transformers import CLIPModel, CLIPTokenizer

    ours = open_clip.create_model(NAME, pretrained=str(tiny.safetensors)).eval()
    theirs = CLIPModel.from_pretrained(tiny.hugging_face).eval()
    texts = ["A red fox", "two cats, on a mat! 1234", "naïve café"]
    tokens = open_clip.get_tokenizer(NAME)(texts)
    inputs = CLIPTokenizer.from_pretrained(tiny.hugging_face)(
        texts, return_tensors="pt", padding=True
    )
    for row, ids in enumerate(inputs["input_ids"]):
        end = int(tokens[row].argmax()) + 1
        assert ids[:end].tolist() == tokens[row, :end].tolist()
    pictures = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        image, text = ours.encode_image(pictures, True), ours.encode_text(tokens, True)
        logits = theirs(**inputs, pixel_values=pictures).logits_per_text
    assert torch.allclose(logits / 100, text @ image.T, atol=1e-5)


def test_pairs_are_the_same_bytes_for_everybody_and_all_have_a_text(folder, tmp_path) -> None:
    pairs = pack_pairs([folder], 6, tmp_path, rows_per_shard=4)
    assert pairs.shards() == ["00000", "00001"]
    stored = [s for shard in pairs.shards() for s in iter_shard(pairs, shard)]
    assert len(stored) == 6
    jsonl = as_files(pairs, tmp_path / "files")
    lines = [json.loads(line) for line in jsonl.read_text("utf-8").splitlines()]
    for (key, image, text), line in zip(stored, lines, strict=True):
        assert line["key"] == key
        assert Path(line["images"][0]).read_bytes() == image
        assert line["text"] == f"<__dj__image> {text}"
        assert text
    with pytest.raises(ConfigError, match="8 pairs with a text, fewer than 9"):
        pack_pairs([folder], 9, tmp_path / "more", rows_per_shard=4)


def test_the_trimmed_forward_is_the_padded_one(tiny) -> None:
    import open_clip

    model = open_clip.create_model(NAME, pretrained=str(tiny.safetensors)).eval()
    tokens = open_clip.get_tokenizer(NAME)(["a fox", "two cats on a mat"])
    with torch.inference_mode():
        whole = model.encode_text(tokens)
        assert torch.allclose(encode_trimmed(model, tokens), whole, atol=1e-5)
    seconds = best_forward(model, torch.randn(9, 3, 32, 32), tokens)
    assert all(value > 0 for value in seconds.values())


def test_figures_are_ratios_to_the_better_peer_and_to_the_bare_forward() -> None:
    cost, short = ProcessCost(30.0, 50.0, 2 << 30, ""), ProcessCost(10.0, 9.0, 2 << 30, "")
    peers = {
        "slow 1.0": ProcessCost(300.0, 500.0, 4 << 30, ""),
        "better 2.0": ProcessCost(200.0, 200.0, 4 << 30, ""),
    }
    cpu, memory = costs_beside("fp32", cost, peers, pairs=1000)
    assert (cpu.peer, cpu.value, cpu.ratio, cpu.met) == ("better 2.0", 50.0, 0.25, True)
    assert memory.ratio == 0.5
    bare = {"picture": 0.01, "padded_text": 0.015, "trimmed_text": 0.01}
    figures = {figure.name: figure for figure in throughput("fp32", cost, short, bare, 1000, 100)}
    start = "score/fp32/pairs_per_second"
    assert figures[f"{start}/whole_run/77_tokens"].met is False  # 33.3 of 40
    assert figures[f"{start}/without_start_up/77_tokens"].value == 45.0  # 900 pairs in 20 s
    assert figures[f"{start}/without_start_up/trimmed_tokens"].met  # 45 of 50


def test_similarities_that_differ_are_seen() -> None:
    ours = {"a": 0.1, "b": 0.2, "c": 0.3}
    same, far = ({**ours}, {**ours, "b": 0.25})
    assert [figure.met for figure in agreement("fp32", ours, same, "x 1")[:2]] == [True, True]
    assert agreement("fp32", ours, far, "x 1")[1].met is False
    assert agreement("fp32", ours, {"a": 0.1, "b": 0.2}, "x 1")[0].value == 1


def test_floating_point_operations_are_those_that_open_clip_lists() -> None:
    import open_clip

    # open_clip, docs/model_profile.csv: ViT-L-14, 162.03 and 13.30 GFLOPs
    assert pair_flops(open_clip.get_model_config("ViT-L-14"), 77) == pytest.approx(175.33e9, 1e-3)


def test_the_gpu_road_gives_its_figures_on_any_device(tiny, folder, tmp_path) -> None:
    run = GpuRun(NAME, "bf16", "cpu", peak_tflops=1.0, batch_sizes=(4, 8))
    speed, bare, mfu = gpu_figures([folder], 6, tmp_path, run)
    assert speed.ratio == pytest.approx(speed.value / speed.peer_value)
    assert bare.value > 0
    assert np.isfinite(mfu.value)
    packed, scored = (Dataset.open(tmp_path / name) for name in ("pairs/dataset", "scored"))
    assert not packed.has_table("scores")  # only the copy was scored
    assert scored.read_table("scores", "00000").num_rows == 6
