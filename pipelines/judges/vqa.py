"""Ask a vision-language model: is this what was asked for? The probability of yes against no.

One forward pass a question, nothing is written: P(yes) / (P(yes) + P(no)) at the answer's first
token, each summed over the tokens that spell the word ("yes", "Yes", " yes", ...).

    vqa_score       one question about the whole text: VQAScore (Lin et al. 2024, arXiv:2404.01291;
                    question of github.com/linzhiqiu/t2v_metrics)
    soft_tifa       mean over the prompt's own questions, each answered yes by a right picture
    soft_tifa_all   their geometric mean: low where any one of them is

The two means are Soft-TIFA AM and GM of GenEval 2 (Kamath et al. 2025, arXiv:2512.16853,
github.com/facebookresearch/GenEval2: AM estimates atoms, GM whole prompts). Both sources take the
probability of the right answer among all tokens; among yes and no it is the same for a model that
answers with one of them, and does not sink with a model's habit of beginning otherwise.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, field_validator

from curate.base.errors import CaplabError
from curate.base.settings import OPERATIONAL, Precision, Settings
from curate.served.address import check_address, check_key_name
from pipelines.judges.asked import READ_LIMIT, Against, texts_of
from pipelines.judges.protocol import Judge, Pictures
from recaption.engines.settings import EngineSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.scoring.models.yes_no import Answerer
    from recaption.engines.identity import Captioner

logger = logging.getLogger(__name__)

_ATOM = "{} Answer in one word."  # as GenEval 2's evaluation.py ends its questions


class VqaOptions(Settings):
    """Which model answers, and how it is asked."""

    model: str = Field(
        "Qwen/Qwen3-VL-8B-Instruct",
        description="Hub id or folder of a vision-language model of transformers, or the base URL "
        "of an OpenAI-compatible server that gives log-probabilities (http://localhost:8000/v1).",
    )
    question: str = Field(
        'Does this figure show "{}"? Please answer yes or no.',
        description="The question about a whole text; {} is the text.",
    )
    against: Against = Field(
        "intent", description="intent (where it is a text, else the prompt) or prompt."
    )
    revision: str = Field("main", description="Hub branch, tag or commit of the model.")
    precision: Precision = Field("auto", description="auto: bf16 on a GPU, fp32 on a CPU.")
    batch_size: int = Field(
        16, ge=1, description="Questions a forward pass.", json_schema_extra=OPERATIONAL
    )
    served_model: str = Field("", description="Name on the server; empty takes its only one.")
    api_key_env: str = Field("", description="NAME of the variable with the server's key.")
    in_flight: int = Field(
        32, ge=1, description="Requests in flight to a server.", json_schema_extra=OPERATIONAL
    )

    @field_validator("model")
    @classmethod
    def _no_secret_in_address(cls, model: str) -> str:
        if model.startswith(("http://", "https://")):
            check_address(model)
        return model

    @field_validator("question")
    @classmethod
    def _has_a_place(cls, question: str) -> str:
        if question.count("{}") != 1:
            raise ValueError("it needs {} once, where the text goes")
        return question

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, name: str) -> str:
        check_key_name(name)
        return name


class VqaJudge(Judge):
    """P(yes) of one question about the whole, and of each of the prompt's own questions."""

    Options = VqaOptions
    options: VqaOptions
    metrics = ("vqa_score", "soft_tifa", "soft_tifa_all")
    limits = (
        "A vision-language model answers yes too readily, counts badly beyond a few, and shares "
        "the blind spots of captioners of its family: a captioner should not be its own judge.",
        "Probabilities are not calibrated: compare arms under one model and one question only.",
        READ_LIMIT,
    )

    def __init__(self, options: VqaOptions, device: str) -> None:
        from recaption.engines.registry import identify

        super().__init__(options, device)
        engine = EngineSettings(
            captioner=options.model,
            revision=options.revision,
            served_model=options.served_model,
            api_key_env=options.api_key_env,
            precision=options.precision,
            device=device,
            batch_size=options.batch_size,
            in_flight=options.in_flight,
        )
        self._captioner = identify(engine)
        self._answerer = _answerer(engine, self._captioner)

    def identity(self) -> dict[str, Any]:
        return {"model": self._captioner.model, "digest": self._captioner.digest}

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        images = [Image.fromarray(picture) for picture in pictures]
        whole = [self.options.question.format(t) for t in texts_of(asked, self.options.against)]
        atoms = [
            [_ATOM.format(question) for question in questions or []]
            for questions in asked.column("questions").to_pylist()
        ]
        rows = [row for row, questions in enumerate(atoms) for _ in questions]
        said = self._yes(
            images + [images[row] for row in rows], whole + [q for some in atoms for q in some]
        )
        vqa_score, rest = said[: len(whole)], said[len(whole) :]
        bounds = np.cumsum([len(questions) for questions in atoms])[:-1]
        parts = np.split(rest, bounds)
        return {
            "vqa_score": vqa_score,
            "soft_tifa": np.array([part.mean() if len(part) else np.nan for part in parts]),
            "soft_tifa_all": np.array([geometric_mean(part) for part in parts]),
        }

    def _yes(self, images: list[Image.Image], questions: list[str]) -> NDArray[np.float64]:
        """P(yes), (N,); NaN where there is no answer, which is told.

        Raises:
            CaplabError: not one of these questions was answered.
        """
        answers = self._answerer.yes(images, questions)
        if lost := len(answers.errors):
            why = next(iter(answers.errors.values()))
            if lost == len(questions):
                raise CaplabError(f"{self.options.model} answers no question ({why}).")
            logger.warning("%d of %d questions have no answer (%s)", lost, len(questions), why)
        return answers.yes


def _answerer(engine: EngineSettings, captioner: Captioner) -> Answerer:
    """The model that the settings name, after it has answered a question.

    Raises:
        ConfigError: it does not load or answer, or cannot say yes and no.
    """
    from curate.scoring.models.yes_no import LocalAnswerer, ServedAnswerer, tried
    from recaption.engines.http.engine import server_of

    made: Answerer
    if captioner.engine == "http":
        made = ServedAnswerer(server_of(engine, captioner.model), engine.in_flight)
    else:
        folder, size = captioner.folder(), engine.batch_size
        made = LocalAnswerer(folder, engine.device, engine.precision, size, captioner.model)
    return tried(made, captioner.model)


def geometric_mean(probabilities: NDArray[np.float64]) -> float:
    """Of probabilities (Q,); 0 where one of them is, NaN of none."""
    if not len(probabilities):
        return float("nan")
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(probabilities).mean()))
