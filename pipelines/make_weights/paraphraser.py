"""A T5 that writes a text again in another wording: what makes its encoder understand texts.

Three losses. The decoder has one layer and sees the features with noise and only some of them, so
what belongs together is joined by the encoder, and every word carries it. Two wordings of the same
facts are to be read alike by any attention. And the facts of its clause are to be read linearly
off every word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.make_weights.clause_labels import LABELS, UNSAID, token_labels
from pipelines.make_weights.text_pairs import WORDINGS, TextPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, T5EncoderModel


class Paraphraser(nn.Module):
    """T5 whose decoder is told a wording first. Its head is not tied to the words."""

    def __init__(
        self, encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerFast, seed: int
    ) -> None:
        from transformers import T5Config, T5ForConditionalGeneration

        super().__init__()
        self.tokenizer = tokenizer
        self.encoder = encoder
        words = len(tokenizer)
        own = self.encoder.config.to_dict()
        torch.manual_seed(seed)
        # One layer: what belongs together has to be joined by the encoder.
        whole = T5ForConditionalGeneration(
            T5Config(
                **{
                    **own,
                    "vocab_size": words + len(WORDINGS),
                    "num_decoder_layers": 1,
                    "is_encoder_decoder": True,
                    "tie_word_embeddings": False,
                    "decoder_start_token_id": 0,
                },
                attn_implementation="eager",
            )
        )
        self.decoder, self.head = whole.decoder, whole.lm_head
        self.decoder.embed_tokens = nn.Embedding(words + len(WORDINGS), encoder.config.d_model)
        self.labels = nn.ModuleDict(
            {name: nn.Linear(encoder.config.d_model, len(names)) for name, names in LABELS.items()}
        )

    def forward(self, source: Tensor, mask: Tensor, told: Tensor) -> Tensor:
        """Logits (B, T, V) of the next word, after the wording and the words before."""
        state = self.encoder(input_ids=source, attention_mask=mask).last_hidden_state
        return self._written(state, mask, told)

    def losses(
        self, pairs: Sequence[TextPair], hidden: float, noise: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three losses, each (): of the paraphrase, of features that differ, of the clauses."""
        source, mask, told, wanted = self.batch(pairs)
        state = self.encoder(input_ids=source, attention_mask=mask).last_hidden_state
        twin = self.read([pair.target for pair in pairs])
        other = self.encoder(
            input_ids=twin.input_ids, attention_mask=twin.attention_mask
        ).last_hidden_state
        apart = read_apart(state, mask, other, twin.attention_mask)
        # Each word has to carry what belongs to it, since others may not be seen, and loudly.
        share = hidden * torch.rand(len(mask), 1)
        seen = mask * (torch.rand(mask.shape) >= share)
        seen = torch.where(seen.any(1, keepdim=True), seen, mask)
        state = state + noise * torch.randn_like(state)
        logits = self._written(state, seen, told).float()
        paraphrase = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        other = other + noise * torch.randn_like(other)
        grids = [pair.grid for pair in pairs]
        clauses = self._labelled(state, [pair.source for pair in pairs], grids)
        clauses = clauses + self._labelled(other, [pair.target for pair in pairs], grids)
        return paraphrase, apart, clauses

    def _written(self, state: Tensor, mask: Tensor, told: Tensor) -> Tensor:
        output = self.decoder(
            input_ids=told, encoder_hidden_states=state, encoder_attention_mask=mask
        )
        logits: Tensor = self.head(output.last_hidden_state)
        return logits

    def batch(self, pairs: Sequence[TextPair]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Source ids and mask (B, S), what the decoder is told and what it is to write (B, T)."""
        source = self.read([pair.source for pair in pairs])
        target = self.read([pair.target for pair in pairs])
        wanted = target.input_ids.masked_fill(target.attention_mask == 0, -100)
        first = torch.tensor(
            [len(self.tokenizer) + WORDINGS.index(pair.target_wording) for pair in pairs]
        )
        told = torch.cat([first[:, None], target.input_ids[:, :-1]], 1)
        return source.input_ids, source.attention_mask, told, wanted

    def _labelled(self, state: Tensor, texts: Sequence[str], grids: Sequence[int]) -> Tensor:
        """Cross-entropy of what every token's clause says, read off its feature linearly."""
        spans = self.tokenizer(list(texts), truncation=True, return_offsets_mapping=True)
        wanted = torch.full((*state.shape[:2], len(LABELS)), UNSAID)
        for row, text, grid, own in zip(wanted, texts, grids, spans["offset_mapping"], strict=True):
            row[: len(own)] = torch.from_numpy(token_labels(text, own, grid))
        losses = [
            F.cross_entropy(
                head(state).float().flatten(0, 1), wanted[..., k].flatten(), reduction="sum"
            )
            for k, head in enumerate(self.labels.values())
        ]
        return torch.stack(losses).sum() / (wanted != UNSAID).sum().clamp(min=1)

    def read(self, texts: Sequence[str]) -> Any:
        """Ids and mask, padded to the longest of them."""
        return self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")


def read_apart(one: Tensor, mask: Tensor, other: Tensor, other_mask: Tensor) -> Tensor:
    """How differently any attention reads two texts, by random queries: 0 = alike."""
    queries = torch.randn(one.shape[-1], 64) * torch.exp(torch.empty(64).uniform_(-4, -1))
    queries = queries.to(one.dtype)

    def read(state: Tensor, mask: Tensor) -> Tensor:
        scores = (state @ queries).masked_fill(mask[..., None] == 0, -torch.inf)
        return scores.softmax(1).transpose(1, 2) @ state

    return F.mse_loss(read(one, mask), read(other, other_mask))
