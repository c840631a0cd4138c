"""Tiny captioners, made once for all tests of this folder."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA: fixed number of image tokens, chat template."""
    from tiny_captioners import build_llava

    return build_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL: as many image tokens as the picture needs, chat template."""
    from tiny_captioners import build_qwen25vl

    return build_qwen25vl(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP: no chat template."""
    from tiny_captioners import build_blip

    return build_blip(tmp_path_factory.mktemp("blip"))
