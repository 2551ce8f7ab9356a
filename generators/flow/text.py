"""Prompts into the two code spaces of a joint transformer: codes of tokens, and one pooled code of the prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from erase.concept import Concept
from erase.errors import BadInput
from erase.model import Codes, Contrast, Rows
from generators.stable_diffusion.text import CHUNK, sentence

SEQUENCE, POOLED = "sequence", "pooled"


@dataclass(frozen=True)
class Stretch:
    """A stretch of the token codes: whose they are, which rows, and whether a token sees only what precedes it."""

    encoder: int
    start: int
    length: int
    causal: bool

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.length)


@dataclass(frozen=True)
class Split:
    """The codes [row code] of one sentence in one stretch: before the concept's words, of them, and after them."""

    before: Tensor
    subject: Tensor
    after: Tensor


@dataclass(frozen=True)
class JointReading(ABC):
    """Several text encoders, each with its tokenizer and the number of tokens it reads.

    The encoders in `leading` share a vocabulary; word vectors that `read` is given are theirs. The others read the
    text that the leading tokens spell.
    """

    texts: Sequence[Any]
    tokenizers: Sequence[Any]
    lengths: Sequence[int]
    leading: ClassVar[tuple[int, ...]]

    @property
    @abstractmethod
    def stretches(self) -> tuple[Stretch, ...]:
        """Where each encoder's token codes lie."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """The number of T5's tokens, which stock pipelines are told as `max_sequence_length`."""

    @abstractmethod
    def said(self, ids: Sequence[Tensor]) -> Codes:
        """The codes of token numbers [n token], one tensor for each encoder."""

    def encode(self, prompts: Sequence[str], device: torch.device) -> Codes:
        """The codes of prompts, each different prompt read once; with a graph if the encoders' weights ask for one."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError("encode takes a list of at least one prompt")
        different = list(dict.fromkeys(prompts))
        chunks = [different[at : at + CHUNK] for at in range(0, len(different), CHUNK)]
        codes = Codes.cat([self.said([each.to(device) for each in self._ids(chunk)]) for chunk in chunks])
        if len(different) == len(prompts):
            return codes
        place = {prompt: row for row, prompt in enumerate(different)}
        return codes[torch.tensor([place[prompt] for prompt in prompts], device=device)]

    def _ids(self, prompts: Sequence[str]) -> list[Tensor]:
        return [self._words(number, prompts).input_ids for number in range(len(self.texts))]

    def _words(self, number: int, prompts: Sequence[str]) -> Any:
        return self.tokenizers[number](
            list(prompts),
            padding="max_length",
            max_length=self.lengths[number],
            truncation=True,
            return_tensors="pt",
            return_offsets_mapping=True,
        )

    @property
    def _first(self) -> Any:
        return self.tokenizers[self.leading[0]]

    @property
    def opening(self) -> int:
        """How many tokens stand before a prompt's own: CLIP has a start token, T5 none."""
        return int(self._words(self.leading[0], [""]).attention_mask[0].sum()) - 1

    def tokens(self, prompt: str) -> list[int]:
        """The sub-tokens of a prompt in the leading vocabulary, without start and end."""
        return self._first(prompt, add_special_tokens=False).input_ids

    def spell(self, row: Sequence[int]) -> str:
        """The text of sub-tokens."""
        return str(self._first.decode(list(row))).strip()

    @property
    def specials(self) -> frozenset[int]:
        """Token numbers that are no words."""
        return frozenset(number for at in self.leading for number in self.tokenizers[at].all_special_ids)

    def frame(self, rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        """Start where there is one, row, end, padding [n token]; rows that are too long lose their last words."""
        tokenizer, length, opening = self._first, self.lengths[self.leading[0]], self.opening
        framed = torch.full((len(rows), length), tokenizer.pad_token_id)
        for place, row in zip(framed, rows, strict=True):
            start = [tokenizer.bos_token_id] * opening
            whole = [*start, *row[: length - opening - 1], tokenizer.eos_token_id]
            place[: len(whole)] = torch.tensor(whole)
        return framed.to(device)

    def _own_ids(self, ids: Tensor) -> list[Tensor]:
        """Each encoder's token numbers of framed tokens."""
        ends = torch.eq(ids, self._first.eos_token_id).long().argmax(1)
        within = torch.arange(ids.shape[1], device=ids.device) <= ends[:, None]
        texts = [self.spell(row[self.opening : end].tolist()) for row, end in zip(ids, ends.tolist(), strict=True)]
        return [
            torch.where(within, ids, self.tokenizers[number].pad_token_id)
            if number in self.leading
            else self._words(number, texts).input_ids.to(ids.device)
            for number in range(len(self.texts))
        ]

    def _tables(self) -> list[nn.Embedding]:
        # T5 looks words up in its encoder's own table, which merely shares its weights with the one it names.
        inner = [getattr(self.texts[at], "encoder", None) for at in self.leading]
        return [
            getattr(part, "embed_tokens", None) or self.texts[at].get_input_embeddings()
            for at, part in zip(self.leading, inner, strict=True)
        ]

    @property
    def vocabulary(self) -> Tensor:
        """The word vectors [token word] of all leading tokens; of two encoders side by side."""
        return torch.cat([table.weight.detach() for table in self._tables()], dim=-1)

    def embed(self, ids: Tensor) -> Tensor:
        """The word vectors [n token word] of framed tokens."""
        own = self._own_ids(ids)
        return torch.cat([table(own[at]) for at, table in zip(self.leading, self._tables(), strict=True)], dim=-1)

    def read(self, ids: Tensor, vectors: Tensor) -> Codes:
        """The codes of word vectors that stand where `ids` [n token] would be looked up in the leading tables."""
        tables = self._tables()
        parts = vectors.split([table.embedding_dim for table in tables], dim=-1)
        handles = [
            table.register_forward_hook(lambda *_, part=part: part) for table, part in zip(tables, parts, strict=True)
        ]
        try:
            return self.said(self._own_ids(ids))
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def contrast(
        self, concept: Concept, rows: Rows, templates: Sequence[str], space: str, device: torch.device
    ) -> Contrast:
        """The rows of each of the concept's phrases, in each template, beside the anchor's in the same template."""
        pairs = [
            (sentence(template, phrase), sentence(template, concept.instead))
            for template in templates
            for phrase in concept.phrases
        ]
        both = [each for pair in pairs for each in pair]
        before = [text[:start].rstrip() for text, (start, stop) in both if start == stop]
        texts = list(dict.fromkeys([*(text for text, _ in both), *before]))
        codes = self.encode(texts, device)
        if space == POOLED:
            if codes.pooled is None:
                raise ValueError("this model has no pooled codes")
            pooled = dict(zip(texts, codes.pooled, strict=True))
            present, absent = (torch.stack([pooled[pair[side][0]] for pair in pairs]) for side in (0, 1))
            return Contrast(present, absent)
        read = dict(zip(texts, codes.tokens, strict=True))
        matched = [
            _matched(*(self._split(each, stretch, read) for each in pair), rows)
            for pair in pairs
            for stretch in self.stretches
        ]
        return Contrast(*(torch.cat(side) for side in zip(*matched, strict=True)))

    def _split(self, said: tuple[str, tuple[int, int]], stretch: Stretch, read: Mapping[str, Tensor]) -> Split:
        text, (start, stop) = said
        codes = read[text][stretch.rows]
        if start < stop:
            first, last = self._within(stretch.encoder, text, start, stop)
            first = last if stretch.causal else first
            return Split(codes[:first], codes[first : last + 1], codes[last + 1 :])
        before = text[:start].rstrip()
        gap = self._end(stretch.encoder, before)
        ending = read[before][stretch.rows][gap : gap + 1]
        return Split(codes[:gap], ending, codes[gap if text[start:].strip() else gap + 1 :])

    def _end(self, number: int, text: str) -> int:
        """The row of the first end token."""
        return int(self._words(number, [text]).attention_mask[0].sum()) - 1

    def _within(self, number: int, text: str, start: int, stop: int) -> tuple[int, int]:
        """The rows of the first and the last sub-token within a span of characters."""
        places: list[tuple[int, int]] = self._words(number, [text]).offset_mapping[0].tolist()
        within = [row for row, (here, there) in enumerate(places) if there > here and here < stop and there > start]
        if not within or places[within[-1]][1] < stop:
            raise BadInput(
                f"{text[start:stop]!r} does not fit into the {len(places) - self.opening - 1} tokens this model reads; "
                "use fewer words."
            )
        return within[0], within[-1]

    def resting(self, space: str, device: torch.device) -> Tensor:
        """The codes every image reads [n code]: those of the empty prompt."""
        with torch.no_grad():
            codes = self.encode([""], device)
        return codes.pooled if space == POOLED and codes.pooled is not None else codes.tokens[0]


def _matched(present: Split, absent: Split, rows: Rows) -> tuple[Tensor, Tensor]:
    """Rows of a sentence beside those of the same sentence with the anchor's words.

    Subjects are matched from their last token backwards; where the anchor has fewer, its first stands for the rest.
    """
    count = len(present.subject) if rows != "last" else 1
    place = torch.arange(-count, 0).clamp(min=-len(absent.subject)) + len(absent.subject)
    said, instead = [present.subject[-count:]], [absent.subject[place]]
    if rows != "last":
        after = min(len(present.after), len(absent.after))
        said.append(present.after[:after])
        instead.append(absent.after[:after])
    if rows == "all":
        before = min(len(present.before), len(absent.before))
        said.insert(0, present.before[:before])
        instead.insert(0, absent.before[:before])
    return torch.cat(said), torch.cat(instead)


class FluxReading(JointReading):
    """FLUX.1: T5's codes are the sequence, CLIP's pooled vector the other space."""

    leading = (1,)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        return (Stretch(1, 0, self.lengths[1], causal=False),)

    @property
    def longest(self) -> int:
        return self.lengths[1]

    def said(self, ids: Sequence[Tensor]) -> Codes:
        return Codes(self.texts[1](ids[1])[0], self.texts[0](ids[0]).pooler_output)


@dataclass(frozen=True)
class SD3Reading(JointReading):
    """Stable Diffusion 3: two CLIPs side by side, padded to T5's width, then T5's codes, or zeros without it."""

    width: int = 4096
    absent: int = 256  # rows of zeros in the place of T5
    leading = (0, 1)

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        clip = Stretch(0, 0, self.lengths[0], causal=True)
        return (clip, Stretch(2, self.lengths[0], self.lengths[2], causal=False)) if len(self.texts) == 3 else (clip,)

    @property
    def longest(self) -> int:
        return self.lengths[2] if len(self.texts) == 3 else self.absent

    def said(self, ids: Sequence[Tensor]) -> Codes:
        heard = [text(own, output_hidden_states=True) for text, own in zip(self.texts[:2], ids[:2], strict=True)]
        side = torch.cat([each.hidden_states[-2] for each in heard], dim=-1)
        side = nn.functional.pad(side, (0, self.width - side.shape[-1]))
        after = self.texts[2](ids[2])[0] if len(self.texts) == 3 else side.new_zeros(len(side), self.absent, self.width)
        return Codes(torch.cat([side, after], dim=1), torch.cat([each.text_embeds for each in heard], dim=-1))
