"""How a CoCa's next tokens are chosen: greedy, drawn by the row's own seed, or by a small beam."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from recaption.engines.coca_decoder import CocaDecoder
from recaption.engines.protocol import Sampling
from recaption.engines.sampling import SeededSampler


@dataclass(frozen=True)
class Vocabulary:
    """Token numbers that begin and end a text."""

    start: int
    end: int


@torch.inference_mode()
def write(
    decoder: CocaDecoder,
    pictures: torch.Tensor,
    vocabulary: Vocabulary,
    sampling: Sampling,
    seeds: list[int],
) -> list[list[int]]:
    """Texts of (B, N, D) picture embeddings, end token included where one was written.

    Rows whose text has ended leave the batch as soon as they are a quarter of it.
    """
    device = pictures.device
    most = min(sampling.max_new_tokens, decoder.longest - 1)
    sampler = SeededSampler(sampling) if sampling.temperature > 0 else None
    state = decoder.start(pictures)
    written: list[list[int]] = [[] for _ in seeds]
    rows = list(range(len(seeds)))
    row_seeds = torch.tensor(seeds, dtype=torch.int64, device=device)
    tokens = torch.full((len(rows),), vocabulary.start, device=device)
    seen: torch.Tensor | None = None
    for step in range(1, most + 1):
        logits = decoder.step(state, tokens)
        if sampling.repetition_penalty != 1.0:
            if seen is None:
                seen = torch.zeros_like(logits, dtype=torch.bool)
            seen.scatter_(1, tokens[:, None], True)
            penalty = sampling.repetition_penalty
            harsher = torch.where(logits < 0, logits * penalty, logits / penalty)
            logits = torch.where(seen, harsher, logits)
        if sampler is None:
            tokens = logits.argmax(-1)
        else:
            tokens = sampler.draw(logits, row_seeds, torch.full_like(row_seeds, step))
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not written[row] or written[row][-1] != vocabulary.end:
                written[row].append(token)
        going = [n for n, row in enumerate(rows) if written[row][-1] != vocabulary.end]
        if not going:
            break
        if 4 * len(going) <= 3 * len(rows):
            chosen = torch.tensor(going, device=device)
            state, tokens, row_seeds = state.only(chosen), tokens[chosen], row_seeds[chosen]
            seen = None if seen is None else seen[chosen]
            rows = [rows[n] for n in going]
    return written


@dataclass
class _Beam:
    """Finished texts of one picture: (mean log probability of a token, tokens)."""

    finished: list[tuple[float, list[int]]] = field(default_factory=list)

    def best(self) -> list[int]:
        return max(self.finished, key=lambda text: text[0])[1]


@torch.inference_mode()
def write_by_beam(
    decoder: CocaDecoder,
    pictures: torch.Tensor,
    vocabulary: Vocabulary,
    most_tokens: int,
    beams: int,
) -> list[list[int]]:
    """The likeliest of `beams` texts a picture, by mean log probability of a token.

    Costs `beams` times the work and memory of greedy search.
    """
    device, count = pictures.device, len(pictures)
    most = min(most_tokens, decoder.longest - 1)
    found = [_Beam() for _ in range(count)]
    state = decoder.start(pictures.repeat_interleave(beams, 0))
    tokens = torch.full((count * beams,), vocabulary.start, device=device)
    texts: list[list[int]] = [[] for _ in range(count * beams)]
    # All beams of a picture are the same at first: only one of them may go on.
    scores = torch.full((count, beams), -torch.inf, device=device)
    scores[:, 0] = 0.0
    for step in range(1, most + 1):
        logs = decoder.step(state, tokens).log_softmax(-1)
        size = logs.shape[-1]
        total = (scores[:, :, None] + logs.view(count, beams, size)).flatten(1)
        # Twice as many, so that `beams` go on even if as many end.
        values, places = total.topk(min(2 * beams, beams * size), dim=-1)
        parents, chosen, kept = [], [], []
        for row in range(count):
            going: list[tuple[float, int, int]] = []
            for value, place in zip(values[row].tolist(), places[row].tolist(), strict=True):
                beam, token = divmod(place, size)
                text = [*texts[row * beams + beam], token]
                if token == vocabulary.end or step == most:
                    found[row].finished.append((value / step, text))
                elif len(going) < beams:
                    going.append((value, row * beams + beam, token))
            while len(going) < beams:  # places of beams that ended
                going.append((-torch.inf, row * beams, vocabulary.end))
            for value, parent, token in going:
                kept.append(value)
                parents.append(parent)
                chosen.append(token)
        texts = [[*texts[parent], token] for parent, token in zip(parents, chosen, strict=True)]
        if step == most or all(len(beam.finished) >= beams for beam in found):
            break
        scores = torch.tensor(kept, device=device).view(count, beams)
        tokens = torch.tensor(chosen, device=device)
        state = state.only(torch.tensor(parents, device=device))
    return [beam.best() for beam in found]
