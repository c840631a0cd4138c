"""From settings to a captioner: identified on the driver, opened in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from curate.base.errors import ConfigError
from recaption.captioning.settings import RecaptionSettings
from recaption.engines.identity import (
    Captioner,
    coca_captioner,
    is_coca,
    is_url,
    local_captioner,
    served_captioner,
)
from recaption.engines.protocol import CaptionEngine, Sampling

if TYPE_CHECKING:
    from recaption.engines.http.address import Server


def identify(settings: RecaptionSettings) -> Captioner:
    """Which captioner the settings mean. Hashes a folder's weights; loads nothing.

    Raises:
        ConfigError: there is no such captioner.
    """
    engine = chosen_engine(settings)
    if engine == "coca":
        return coca_captioner(settings.captioner, settings.pretrained)
    if engine != "http":
        return local_captioner(settings.captioner, settings.revision, engine)
    model = settings.served_model
    if not model:
        from recaption.engines.http.models import served_model

        model = served_model(_server(settings, model))
    return served_captioner(settings.captioner, model)


def chosen_engine(settings: RecaptionSettings) -> Literal["transformers", "http", "coca", "vllm"]:
    """The engine that the settings name, or that the captioner's form asks for.

    Raises:
        ConfigError: engine and captioner do not go together.
    """
    captioner, engine = settings.captioner, settings.engine
    remote, coca = is_url(captioner), is_coca(captioner)
    if engine == "auto":
        engine = "http" if remote else "coca" if coca else "transformers"
    fits = {"http": remote, "coca": coca}.get(engine, not remote and not coca)
    if not fits:
        raise ConfigError(
            f"engine = {engine!r} does not go with the captioner {captioner!r}; the http engine "
            f"needs a URL, coca an open_clip model (hf-hub:OWNER/NAME, local-dir:FOLDER, or a name "
            f"beginning with coca_), transformers and vllm a folder or a hub id."
        )
    if settings.pretrained and engine != "coca":
        raise ConfigError("pretrained names the weights of a CoCa; leave it empty.")
    if settings.beams > 1 and engine != "coca":
        raise ConfigError("Only a CoCa has beams; leave beams at 1.")
    return engine


def open_engine(
    settings: RecaptionSettings, captioner: Captioner, sees: bool = True
) -> CaptionEngine:
    """Load the captioner, or reach its server, ready to caption.

    Args:
        sees: whether pictures will be shown; a server of texts alone rewrites prompts as well.

    Raises:
        ConfigError: it cannot be loaded, reached, or made to caption.
    """
    if captioner.engine == "http":
        from recaption.engines.http.engine import HttpEngine

        return HttpEngine(
            _server(settings, captioner.model),
            in_flight=settings.in_flight,
            image_size=settings.image_size,
            picture_format=settings.image_format,
            trial=_trial(settings),
            sees=sees,
        )
    if captioner.engine == "coca":
        from recaption.engines.coca_engine import CocaEngine

        return CocaEngine(
            captioner.location,
            settings.pretrained or None,
            revision=captioner.revision,
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.batch_size,
            image_size=settings.image_size,
            beams=settings.beams,
        )
    if captioner.engine == "vllm":
        from recaption.engines.vllm import VllmEngine

        return VllmEngine(
            captioner.folder(),
            revision=captioner.revision,
            precision=settings.precision,
            batch_size=settings.batch_size,
            image_size=settings.image_size,
            threads=settings.prepare_threads,
        )
    from recaption.engines.transformers.engine import TransformersEngine

    return TransformersEngine(
        captioner.folder(),
        revision=captioner.revision,
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        image_size=settings.image_size,
        threads=settings.prepare_threads,
    )


def _server(settings: RecaptionSettings, model: str) -> Server:
    from recaption.engines.http.address import Server

    return Server(
        base_url=settings.captioner.rstrip("/"),
        model=model,
        api_key_env=settings.api_key_env,
        timeout=settings.timeout,
        attempts=settings.request_attempts,
        patience=settings.patience,
        token_limit_field=settings.token_limit_field,
        omit_fields=settings.omit_fields,
        extra_body=settings.extra_body,
    )


def _trial(settings: RecaptionSettings) -> Sampling:
    """The sampling that needs most of a server: whatever a first try or a retry may send."""
    from recaption.captioning.drafts import RETRY_TOP_K, RETRY_TOP_P

    hotter = max(settings.temperature, settings.retry_temperature if settings.retries else 0.0)
    return Sampling(
        max_new_tokens=max(map(settings.max_new_tokens_of, settings.kinds)),
        temperature=hotter,
        top_p=min(settings.top_p, RETRY_TOP_P),
        top_k=settings.top_k or (RETRY_TOP_K if settings.retries else 0),
        repetition_penalty=settings.repetition_penalty,
    )
