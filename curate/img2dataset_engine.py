"""img2dataset's Downloader without the rest of img2dataset.

Importing the package runs its command line, and with it torch, ray, albumentations and OpenCV:
about six CPU seconds in every worker, for a class that needs none of them. The submodule alone
takes one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from functools import cache
from typing import Any

from curate.errors import ConfigError

_PACKAGE = "img2dataset"


@cache
def load_downloader() -> Any:
    """The class `img2dataset.downloader.Downloader`.

    Raises:
        ConfigError: img2dataset is not installed.
    """
    # Where albumentations is imported after all, it must not ask the network for news.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    # Imported in full elsewhere already: then there is nothing to save.
    if _PACKAGE in sys.modules:
        return importlib.import_module(f"{_PACKAGE}.downloader").Downloader
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ConfigError("img2dataset is not installed; run `make setup`.")
    # A package of that name without its __init__, only while the submodule is imported.
    bare = types.ModuleType(_PACKAGE)
    bare.__path__ = list(spec.submodule_search_locations)
    bare.__spec__ = spec
    sys.modules[_PACKAGE] = bare
    try:
        return importlib.import_module(f"{_PACKAGE}.downloader").Downloader
    finally:
        del sys.modules[_PACKAGE]
