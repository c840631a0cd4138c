"""Captions by an open_clip CoCa (Yu et al. 2022): the captioner that DALL-E 3's follows.

A CoCa reads no instructions: it writes the kind "short" only, one sentence of at most 75 tokens.

open_clip's own `generate` fails with transformers 5, and computes every earlier token again for
each new one. Both towers of a CoCa's text see earlier tokens only (the class token stands last and
is seen by none), so their keys and values can be kept: a text of T tokens costs O(T) forward passes
of one position each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image

from curate.base.errors import ConfigError
from curate.base.reasons import words
from curate.base.settings import Precision, device_of, precision_of
from curate.scoring.scorers import clip_source
from recaption.engines.batches import Batch, caption_in_batches, consecutive
from recaption.engines.identity import Captioner
from recaption.engines.pictures import encode
from recaption.engines.protocol import CaptionOutcome, CaptionRequest, Sampling
from recaption.engines.sampling import draw
from recaption.engines.settings import EngineSettings, Shown, ShownSettings

_THREADS, _TEXTS_ALONE = 4, "a CoCa cannot work on a text alone"

KeysValues = tuple[torch.Tensor, torch.Tensor]


class CocaEngine:
    """A CoCa in this process; see CaptionEngine."""

    name = "coca"

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        revision: str = "",
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 32,
        image_size: int = 0,
        beams: int = 1,
    ) -> None:
        """Load the model and caption a grey picture, so that faults show here.

        Args:
            model: `local-dir:/folder`, `hf-hub:ORG/NAME`, or an open_clip name.
            pretrained: with a name: a tag of open_clip's, or a .safetensors file.
            revision: recorded with the captions.
            device, precision, batch_size: as TransformersEngine.
            image_size: longest side in pixels before the model's own resizing; 0 is the stored one.
            beams: texts that are followed at once where the temperature is 0; 1 is greedy.

        Raises:
            ConfigError: no such model, a pickle, or none that can caption.
        """
        open_clip = clip_source.import_open_clip()
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.revision = revision
        self.device = torch.device(device_of(device))
        self._batch_size, self._image_size, self._beams = batch_size, image_size, beams
        weights = clip_source.check_source(model, pretrained)
        name, options = clip_source.registered(model)
        try:
            if pretrained is not None and not weights:
                clip_source.refuse_pickle(name, pretrained, ())
            self._model = open_clip.create_model(
                name,
                pretrained=pretrained,
                precision=precision_of(precision, str(self.device)),
                device=self.device,
                require_pretrained=True,
                **options,
            ).eval()
        except (RuntimeError, OSError, ValueError, TypeError) as error:
            raise ConfigError(f"The CoCa {model!r} does not load ({words(error)}).") from error
        self._decoder = CocaDecoder(self._model)
        self._dtype = next(self._model.visual.parameters()).dtype
        shown = PreprocessCfg(**open_clip.get_model_preprocess_cfg(self._model))
        self._transform = image_transform_v2(shown, is_train=False)
        # Not cut to the model's context here: nothing is encoded, and encoding for a CoCa would
        # have to leave a place for its class token (76 of 77).
        self._tokenizer = open_clip.get_tokenizer(name)
        if not isinstance(self._tokenizer, open_clip.SimpleTokenizer):
            raise ConfigError(f"The CoCa {model!r} has a tokenizer other than CLIP's.")
        self._vocabulary = Vocabulary(self._tokenizer.sot_token_id, self._tokenizer.eot_token_id)
        self._probe()

    @classmethod
    def opened(
        cls, settings: EngineSettings, captioner: Captioner, trial: Sampling, shown: Shown
    ) -> CocaEngine:
        """See recaption.engines.registry."""
        options = settings.model_dump(include={"device", "precision", "batch_size"})
        options |= (shown or ShownSettings()).model_dump(include={"image_size", "beams"})
        pretrained = settings.pretrained or None
        return cls(captioner.location, pretrained, captioner.revision, **options)

    def caption(self, request: CaptionRequest) -> list[CaptionOutcome]:
        """See CaptionEngine. Prompts are not read; the next batches are decoded meanwhile.

        Raises:
            torch.AcceleratorError: the device itself failed; the process has to be replaced.
        """
        return caption_in_batches(
            consecutive(range(len(request)), self._batch_size),
            lambda rows: self._prepare(request, rows),
            lambda batch: self._write(request, batch),
            _THREADS,
            lambda error: isinstance(error, torch.AcceleratorError),
        )

    def _prepare(self, request: CaptionRequest, rows: Sequence[int]) -> Batch:
        """A batch with pictures (B, 3, S, S)."""
        batch = Batch.decoded(request, rows, self._image_size, _TEXTS_ALONE)
        if batch.rows:
            batch.inputs = torch.stack([self._transform(image) for image in batch.images])
        return batch

    @torch.inference_mode()
    def _write(self, request: CaptionRequest, batch: Batch) -> list[CaptionOutcome]:
        sampling = request.sampling
        try:
            _, seen = self._model._encode_image(batch.inputs.to(self.device, self._dtype))
            if self._beams > 1 and sampling.temperature == 0:
                most = sampling.max_new_tokens
                texts = write_by_beam(self._decoder, seen, self._vocabulary, most, self._beams)
            else:
                seeds = [request.seeds[row] for row in batch.rows]
                texts = write(self._decoder, seen, self._vocabulary, sampling, seeds)
        except torch.OutOfMemoryError:
            self._batch_size = max(1, len(batch.rows) // 2)  # later requests begin with it
            raise
        return [
            self._outcome(tokens, size) for tokens, size in zip(texts, batch.sizes, strict=True)
        ]

    def _outcome(self, tokens: list[int], size: tuple[int, int] | None) -> CaptionOutcome:
        spoken = [token for token in tokens if token not in self._vocabulary]
        return CaptionOutcome(
            text=self._tokenizer.decode(spoken).strip(),
            finish_reason="stop" if tokens[-1] == self._vocabulary.end else "length",
            output_tokens=len(tokens),
            sent_width=size[0] if size else None,
            sent_height=size[1] if size else None,
        )

    def _probe(self) -> None:
        grey: Any = encode(Image.new("RGB", (64, 64), (128, 128, 128)), "png")
        outcome = self.caption(CaptionRequest([grey], [""], [0], Sampling(2)))[0]
        if outcome.error is not None:
            raise ConfigError(f"The CoCa cannot caption a grey picture ({outcome.detail}).")


class Vocabulary(NamedTuple):
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
        if sampling.temperature > 0:
            tokens = draw(logits, sampling, row_seeds, step)
        else:
            tokens = logits.argmax(-1)
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
    device, number = pictures.device, len(pictures)
    most = min(most_tokens, decoder.longest - 1)
    # Finished texts of each picture: (mean log probability of a token, tokens).
    found: list[list[tuple[float, list[int]]]] = [[] for _ in range(number)]
    state = decoder.start(pictures.repeat_interleave(beams, 0))
    tokens = torch.full((number * beams,), vocabulary.start, device=device)
    texts: list[list[int]] = [[] for _ in range(number * beams)]
    # All beams of a picture are the same at first: only one of them may go on.
    scores = torch.full((number, beams), -torch.inf, device=device)
    scores[:, 0] = 0.0
    for step in range(1, most + 1):
        logs = decoder.step(state, tokens).log_softmax(-1)
        size = logs.shape[-1]
        total = (scores[:, :, None] + logs.view(number, beams, size)).flatten(1)
        # Twice as many, so that `beams` go on even if as many end.
        values, places = total.topk(min(2 * beams, beams * size), dim=-1)
        going: list[tuple[float, int, int]] = []
        for row in range(number):
            for value, place in zip(values[row].tolist(), places[row].tolist(), strict=True):
                parent, token = row * beams + place // size, place % size
                if token == vocabulary.end or step == most:
                    found[row].append((value / step, [*texts[parent], token]))
                elif len(going) < (row + 1) * beams:
                    going.append((value, parent, token))
            # Places of beams that ended.
            dead = (-torch.inf, row * beams, vocabulary.end)
            going += [dead] * ((row + 1) * beams - len(going))
        texts = [[*texts[parent], token] for _, parent, token in going]
        if step == most or all(len(finished) >= beams for finished in found):
            break
        kept, parents, chosen = zip(*going, strict=True)
        scores = torch.tensor(kept, device=device).view(number, beams)
        tokens = torch.tensor(chosen, device=device)
        state = state.only(torch.tensor(parents, device=device))
    return [max(finished, key=lambda text: text[0])[1] for finished in found]


class CocaDecoder:
    """The text towers of a CoCa over a batch of pictures."""

    def __init__(self, model: Any) -> None:
        """Of an `open_clip.CoCa` with a CLIP text tower.

        Raises:
            ConfigError: another model, or a CoCa whose text tower is of another kind.
        """
        from open_clip import CoCa
        from open_clip.transformer import ResidualAttentionBlock, TextTransformer

        if not isinstance(model, CoCa):
            raise ConfigError(f"The model is no CoCa but a {type(model).__name__}.")
        blocks = getattr(getattr(model.text, "transformer", None), "resblocks", [])
        plain = all(type(block) is ResidualAttentionBlock for block in blocks)
        if not isinstance(model.text, TextTransformer) or not plain:
            raise ConfigError("Only a CoCa with open_clip's own plain text tower can caption.")
        self._text, self._decoder = model.text, model.text_decoder
        self.longest = int(self._decoder.context_length)
        """Tokens of a text at most, the start token included."""

    @torch.inference_mode()
    def start(self, image_embeddings: torch.Tensor) -> State:
        """The state before the first token of (B, N, D) picture embeddings."""
        crossed = []
        for block in self._decoder.cross_attn:
            seen = block.ln_1_kv(image_embeddings)
            crossed.append((_project(seen, block.attn, 1), _project(seen, block.attn, 2)))
        layers = len(self._text.transformer.resblocks) + len(self._decoder.resblocks)
        return State(crossed, [None] * layers)

    @torch.inference_mode()
    def step(self, state: State, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (B, V) float32 behind the next tokens (B,); the state goes on with them."""
        text, decoder = self._text, self._decoder
        dtype = text.transformer.get_cast_dtype()
        x = text.token_embedding(tokens)[:, None].to(dtype)
        x = x + text.positional_embedding[state.length].to(dtype)
        mask = self._visible(state, tokens)
        layers = count()
        for block in text.transformer.resblocks:
            x = _self_attention(block, x, state, next(layers), mask)
        if text.cls_emb is None:
            x = text.ln_final(x)
        crossing = zip(decoder.resblocks, decoder.cross_attn, state.crossed, strict=True)
        for block, cross, picture in crossing:
            x = _self_attention(block, x, state, next(layers), None)
            x = _residual(cross, x, _project(cross.ln_1(x), cross.attn, 0), picture, None)
        x = decoder.ln_final(x)
        if decoder.text_projection is not None:
            x = x @ decoder.text_projection
        return x[:, 0].float()

    def _visible(self, state: State, tokens: torch.Tensor) -> torch.Tensor | None:
        """(B, 1, 1, T) bool: which tokens the text tower may look at.

        Tokens with the number of the padding are hidden, and "!" has that number in CLIP's
        vocabulary. Published weights were trained with that mask one place off, which open_clip
        keeps as its default (`correct_cls_mask`).
        """
        text = self._text
        if not text.use_pad_mask and text.cls_emb is None:
            return None
        is_word = (tokens != text.pad_id)[:, None]
        legacy = text.cls_emb is not None and not text.correct_cls_mask
        if state.visible is None:
            state.visible = torch.ones_like(is_word) if legacy else is_word
        else:
            newest = state.last_is_word if legacy and state.last_is_word is not None else is_word
            state.visible = torch.cat([state.visible, newest], dim=1)
        state.last_is_word = is_word
        return state.visible[:, None, None]


@dataclass
class State:
    """Keys and values of B rows, T tokens so far.

    Attributes:
        crossed: one a decoder layer, (B, H, N, D) keys and values of the picture.
        kept: one a layer of either tower, (B, H, T, D) keys and values of the text.
        visible: (B, T) bool, see CocaDecoder.
        last_is_word: (B, 1) bool, whether the last token is no padding.
    """

    crossed: list[KeysValues]
    kept: list[KeysValues | None]
    visible: torch.Tensor | None = None
    last_is_word: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """T."""
        return 0 if self.kept[0] is None else int(self.kept[0][0].shape[2])

    def only(self, rows: torch.Tensor) -> State:
        """The state of rows (R,) int64, which may repeat."""
        crossed = [(keys[rows], values[rows]) for keys, values in self.crossed]
        kept = [None if pair is None else (pair[0][rows], pair[1][rows]) for pair in self.kept]
        masks = (None if mask is None else mask[rows] for mask in (self.visible, self.last_is_word))
        return State(crossed, kept, *masks)


def _self_attention(
    block: Any, x: torch.Tensor, state: State, number: int, mask: torch.Tensor | None
) -> torch.Tensor:
    normed = block.ln_1(x)
    query, keys, values = (_project(normed, block.attn, part) for part in range(3))
    before = state.kept[number]
    if before is not None:
        keys = torch.cat([before[0], keys], dim=2)
        values = torch.cat([before[1], values], dim=2)
    state.kept[number] = (keys, values)
    return _residual(block, x, query, (keys, values), mask)


def _residual(
    block: Any, x: torch.Tensor, query: torch.Tensor, seen: KeysValues, mask: torch.Tensor | None
) -> torch.Tensor:
    """open_clip's ResidualAttentionBlock behind its projections."""
    found = F.scaled_dot_product_attention(query, *seen, attn_mask=mask)
    x = x + block.ls_1(block.attn.out_proj(found.transpose(1, 2).flatten(2)))
    out: torch.Tensor = x + block.ls_2(block.mlp(block.ln_2(x)))
    return out


def _project(x: torch.Tensor, attention: Any, part: int) -> torch.Tensor:
    """Query (part 0), key (1) or value (2) of (B, L, D), as (B, H, L, D / H)."""
    rows = slice(part * attention.embed_dim, (part + 1) * attention.embed_dim)
    found = F.linear(x, attention.in_proj_weight[rows], attention.in_proj_bias[rows])
    return found.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
