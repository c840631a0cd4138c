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

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, field_validator

from curate.base.settings import OPERATIONAL, Precision, Settings
from pipelines.judges.asked import READ_LIMIT, Against, texts_of
from pipelines.judges.protocol import Judge, Pictures
from recaption.engines.http.address import check_address, check_key_name
from recaption.engines.settings import EngineSettings

if TYPE_CHECKING:
    import pyarrow as pa

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
        from pipelines.judges.yes_no import opened
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
        self._answerer = opened(engine, self._captioner)

    def identity(self) -> dict[str, Any]:
        return {"model": self._captioner.model, "digest": self._captioner.digest}

    def score(self, pictures: Pictures, asked: pa.Table) -> dict[str, NDArray[np.float64]]:
        encoded = [_png(picture) for picture in pictures]
        whole = [self.options.question.format(t) for t in texts_of(asked, self.options.against)]
        atoms = [
            [_ATOM.format(question) for question in questions or []]
            for questions in asked.column("questions").to_pylist()
        ]
        rows = [row for row, questions in enumerate(atoms) for _ in questions]
        said = self._answerer.yes(
            encoded + [encoded[row] for row in rows], whole + [q for some in atoms for q in some]
        )
        vqa_score, rest = said[: len(whole)], said[len(whole) :]
        bounds = np.cumsum([len(questions) for questions in atoms])[:-1]
        parts = np.split(rest, bounds)
        return {
            "vqa_score": vqa_score,
            "soft_tifa": np.array([part.mean() if len(part) else np.nan for part in parts]),
            "soft_tifa_all": np.array([geometric_mean(part) for part in parts]),
        }


def geometric_mean(probabilities: NDArray[np.float64]) -> float:
    """Of probabilities (Q,); 0 where one of them is, NaN of none."""
    if not len(probabilities):
        return float("nan")
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(probabilities).mean()))


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
