"""From settings to a captioner: identified on the driver, opened in a worker.

A captioner of one's own is a class with `name`, `revision` and `caption` (see CaptionEngine), made
without arguments: `--captioner my_package.module:Class`, or an entry point of the group
`caption_lab.captioners`. A class method `opened`, as `open_engine` calls it, is given the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from curate.base.errors import CaplabError, ConfigError
from curate.base.registry import known, load, said, tried
from recaption.engines.identity import (
    Captioner,
    coca_captioner,
    is_coca,
    is_url,
    local_captioner,
    own_captioner,
    served_captioner,
)
from recaption.engines.own import GuardedCaptioner
from recaption.engines.protocol import CaptionEngine, Sampling
from recaption.engines.settings import EngineSettings, Shown

ENGINES: Mapping[str, str] = {
    "transformers": "recaption.engines.transformers.engine:TransformersEngine",
    "http": "recaption.engines.http.engine:HttpEngine",
    "coca": "recaption.engines.coca:CocaEngine",
    "vllm": "recaption.engines.vllm:VllmEngine",
}
OWN = "own"
"""Engine of a captioner that is a class of the user's."""


def identify(settings: EngineSettings) -> Captioner:
    """Which captioner the settings mean. Hashes a folder's weights; loads nothing.

    Raises:
        ConfigError: there is no such captioner.
    """
    engine = chosen_engine(settings)
    if engine == OWN:
        return own_captioner(settings.captioner, _class(settings.captioner))
    if engine == "coca":
        return coca_captioner(settings.captioner, settings.pretrained)
    if engine != "http":
        return local_captioner(settings.captioner, settings.revision, engine)
    model = settings.served_model
    if not model:
        from curate.served.models import served_model
        from recaption.engines.http.engine import server_of

        model = served_model(server_of(settings, model))
    return served_captioner(settings.captioner, model)


def chosen_engine(settings: EngineSettings) -> str:
    """The engine that the settings name, or that the captioner's form asks for.

    Raises:
        ConfigError: engine and captioner do not go together.
    """
    captioner, engine = settings.captioner, str(settings.engine)
    form = "http" if is_url(captioner) else "coca" if is_coca(captioner) else ""
    if not form and is_own(captioner):
        form = OWN
    if engine == "auto":
        engine = form or "transformers"
    if engine != (form or engine) or (not form and engine in ("http", "coca")):
        raise ConfigError(
            f"engine = {engine!r} does not go with the captioner {captioner!r}; the http engine "
            f"needs a URL, coca an open_clip model (hf-hub:OWNER/NAME, local-dir:FOLDER, or a name "
            f"beginning with coca_), transformers and vllm a folder or a hub id."
        )
    if settings.pretrained and engine != "coca":
        raise ConfigError("pretrained names the weights of a CoCa; leave it empty.")
    if getattr(settings, "beams", 1) > 1 and engine != "coca":
        raise ConfigError("Only a CoCa has beams; leave beams at 1.")
    return engine


def is_own(captioner: str) -> bool:
    """Whether the `captioner` setting names a class: `module:Class`, or an entry point."""
    named = all(part.isidentifier() for part in captioner.replace(":", ".", 1).split("."))
    return (named and ":" in captioner) or captioner in known("captioners", {})


def open_engine(
    settings: EngineSettings,
    captioner: Captioner,
    trial: Sampling,
    shown: Shown = None,
) -> CaptionEngine:
    """Load the captioner, or reach its server, ready to caption.

    Args:
        trial: with all that later requests may ask for; see Sampling.most_of.
        shown: how pictures are shown; None: there will be none, but texts alone.

    Raises:
        ConfigError: it cannot be loaded, reached, or made to caption.
    """
    if captioner.engine != OWN:
        engine: Any = load("captioners", captioner.engine, ENGINES)
        return cast(CaptionEngine, engine.opened(settings, captioner, trial, shown))
    own = _class(captioner.location)
    made = tried(
        lambda: own.opened(settings, captioner, trial, shown) if hasattr(own, "opened") else own()
    )
    if isinstance(made, CaplabError):
        raise made
    if isinstance(made, Exception):
        raise ConfigError(
            f"The captioner {captioner.location} cannot be made ({said(made)}); it is called "
            f"without arguments, or by its class method `opened`."
        ) from made
    return GuardedCaptioner(made, captioner.location, settings.batch_size)


def _class(name: str) -> Any:
    found = load("captioners", name, {})
    missing = [part for part in ("name", "revision", "caption") if not hasattr(found, part)]
    if missing:
        raise ConfigError(f"The captioner {name!r} is no CaptionEngine: it has no {missing[0]!r}.")
    return found
