"""What passes between asking, judging and the table: plan, pending rows, drafts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from recaption.captioning.settings import RecaptionSettings
from recaption.engines.protocol import CaptionOutcome, Sampling
from recaption.gates.language import expected_language
from recaption.gates.registry import ADDED_NUMBERS, TOO_LONG, Gate, with_own
from recaption.measure.similarity import Embedding
from recaption.prompts.template import LANGUAGE, PromptTemplate

OK = "ok"
REJECTED = "rejected"
FAILED = "failed"

# Nucleus of a retry: a loop needs other words, a caption still needs likely ones. Qwen advises
# temperature 0.6, top_p 0.95 and top_k 20 against loops.
RETRY_TOP_P = 0.95
RETRY_TOP_K = 20


@dataclass(frozen=True)
class KindPlan:
    """All that holds for every caption of one kind.

    Attributes:
        template: the prompt.
        sampling: of the first try.
        retry_sampling: of every further try.
        retries: further tries at most.
        seed: of the whole run.
        min_words: fewer are too short.
        max_words: more are too long; 0 is no limit.
        rejects: names of the gates that reject.
        gates: all that are asked.
        show_alt_text: whether the alt text is shown as a hint.
        language: ISO code that captions should have, where no variable says otherwise; "" is any.
        clip_margin: how much less than the alt text a caption may fit its picture, as cosine.
    """

    template: PromptTemplate
    sampling: Sampling
    retry_sampling: Sampling
    retries: int
    seed: int
    min_words: int
    rejects: tuple[str, ...]
    gates: Mapping[str, Gate]
    show_alt_text: bool
    language: str = ""
    clip_margin: float = 0.0
    max_words: int = 0

    @classmethod
    def of(cls, settings: RecaptionSettings, template: PromptTemplate) -> KindPlan:
        """The plan for the kind that `template` names.

        Raises:
            ConfigError: the template's constant language is no language that we know.
        """
        kind = template.name
        lengths = settings.lengths_of(kind, template.lengths)
        first = Sampling(
            max_new_tokens=lengths.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            repetition_penalty=settings.repetition_penalty,
        )
        gates = with_own(settings.gates)
        hotter = max(settings.temperature, settings.retry_temperature)
        asked = template.shown({}).get(LANGUAGE)
        return cls(
            template=template,
            sampling=first,
            retry_sampling=replace(
                first,
                temperature=hotter,
                top_p=min(settings.top_p, RETRY_TOP_P),
                top_k=settings.top_k or RETRY_TOP_K,
            ),
            retries=settings.retries,
            seed=settings.seed,
            min_words=lengths.min_words,
            max_words=lengths.max_words,
            rejects=(
                *settings.reject,
                *((TOO_LONG,) if lengths.max_words else ()),
                *((ADDED_NUMBERS,) if settings.fuse else ()),
                *(name for name in settings.gates if gates[name].rejects),
            ),
            gates=gates,
            show_alt_text=settings.show_alt_text,
            language=expected_language(asked) if asked else settings.language,
            clip_margin=settings.clip_margin,
        )


@dataclass
class Pending:
    """Captions of one kind that are still to be written, as columns of equal length.

    Attributes:
        pictures: None where none is shown.
        prompt_values: each row's values of the prompt's columns (PromptColumns.values).
        image_embeddings: each picture's stored embedding (CaptionSimilarity.embeddings), or None.
    """

    keys: list[str] = field(default_factory=list)
    sample_indices: list[int] = field(default_factory=list)
    pictures: list[bytes | None] = field(default_factory=list)
    alt_texts: list[str | None] = field(default_factory=list)
    prompt_values: list[Mapping[str, str]] = field(default_factory=list)
    image_embeddings: list[Embedding | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def add(
        self,
        key: str,
        sample_index: int,
        picture: bytes | None,
        alt_text: str | None,
        prompt_values: Mapping[str, str] | None = None,
        image_embedding: Embedding | None = None,
    ) -> None:
        """Append a row; several rows of one picture share its bytes."""
        self.keys.append(key)
        self.sample_indices.append(sample_index)
        self.pictures.append(picture)
        self.alt_texts.append(alt_text)
        self.prompt_values.append(prompt_values or {})
        self.image_embeddings.append(image_embedding)


@dataclass
class Draft:
    """One row's latest answer, its judgement and what was measured of it.

    Attributes:
        repaired: what the measures below are of; None where the captioner said nothing.
        text: the same, where accepted.
        latency_seconds: of all tries; None where the engine does not tell.
        similarity, sentence_mean, sentence_min: its cosines with the picture; NaN where unknown.
        alt_similarity: the alt text's, mean over its sentences.
    """

    outcome: CaptionOutcome
    attempts: int
    seed: int
    sampling: Sampling
    status: str = FAILED
    reason: str | None = None
    repaired: str | None = None
    text: str | None = None
    flags: list[str] = field(default_factory=list)
    retry: bool = False
    latency_seconds: float | None = None
    similarity: float = float("nan")
    sentence_mean: float = float("nan")
    sentence_min: float = float("nan")
    alt_similarity: float = float("nan")
