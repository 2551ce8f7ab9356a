"""Prompts into codes, and the rows of them that belong to a concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from erase.concept import Concept
from erase.errors import BadInput
from erase.model import Codes, Contrast, Rows
from generators.checkpoints.parts import TextModel, Tokenizer

CHUNK = 64  # prompts read at once


@dataclass(frozen=True)
class Reading:
    """The text side of a model: one tower (SD 1, SD 2) or two side by side (XL), each with its tokenizer."""

    texts: Sequence[TextModel]
    tokenizers: Sequence[Tokenizer]

    def encode(self, prompts: Sequence[str], device: torch.device) -> Codes:
        """The codes of prompts, each different prompt read once; with a graph if the towers' weights ask for one."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError("encode takes a list of at least one prompt")
        different = list(dict.fromkeys(prompts))
        chunks = [different[at : at + CHUNK] for at in range(0, len(different), CHUNK)]
        codes = Codes.cat([self._read(chunk, device) for chunk in chunks])
        if len(different) == len(prompts):
            return codes
        place = {prompt: row for row, prompt in enumerate(different)}
        return codes[torch.tensor([place[prompt] for prompt in prompts], device=device)]

    def _read(self, prompts: list[str], device: torch.device) -> Codes:
        words = [self._words(number, prompts) for number in range(len(self.texts))]
        return self._said([each.input_ids.to(device) for each in words], words[0].attention_mask.to(device))

    def _said(self, ids: Sequence[Tensor], mask: Tensor) -> Codes:
        """What the towers say of token numbers [n token], each tower's own."""
        if len(self.texts) == 1:
            text = self.texts[0]
            return Codes(text(ids[0], attention_mask=mask if self._masked(text) else None)[0])
        # XL reads the layer before the last of both towers, and the second tower's pooled vector beside them.
        said = [text(own, output_hidden_states=True) for text, own in zip(self.texts, ids, strict=True)]
        return Codes(torch.cat([each.hidden_states[-2] for each in said], dim=-1), said[1].text_embeds)

    @staticmethod
    def _masked(text: TextModel) -> bool:
        return bool(getattr(text.config, "use_attention_mask", False))

    def tokens(self, prompt: str) -> list[int]:
        """The sub-tokens of a prompt, without start and end."""
        return self.tokenizers[0](prompt, add_special_tokens=False).input_ids

    def spell(self, row: Sequence[int]) -> str:
        """The text of sub-tokens."""
        return str(self.tokenizers[0].decode(list(row))).strip()

    @property
    def specials(self) -> frozenset[int]:
        """Token numbers that are no words, in any of the tokenizers."""
        return frozenset(number for tokenizer in self.tokenizers for number in tokenizer.all_special_ids)

    @property
    def room(self) -> int:
        """How many sub-tokens of a prompt are read, without start and end."""
        return self._length(0) - 2

    def frame(self, rows: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        """Start, row, end, padding [n token]: rows that are too long lose their last words, never the end."""
        tokenizer: Any = self.tokenizers[0]
        length = self._length(0)
        framed = torch.full((len(rows), length), tokenizer.pad_token_id)
        for place, row in zip(framed, rows, strict=True):
            whole = [tokenizer.bos_token_id, *row[: length - 2], tokenizer.eos_token_id]
            place[: len(whole)] = torch.tensor(whole)
        return framed.to(device)

    def _length(self, number: int) -> int:
        return min(self.tokenizers[number].model_max_length, self.texts[number].config.max_position_embeddings)

    def _own_ids(self, ids: Tensor) -> tuple[list[Tensor], Tensor]:
        """Each tower's token numbers, for they pad differently, and the mask of what is no padding."""
        tokenizers: Sequence[Any] = self.tokenizers
        ends = torch.eq(ids, tokenizers[0].eos_token_id).long().argmax(1)
        within = torch.arange(ids.shape[1], device=ids.device) <= ends[:, None]
        return [torch.where(within, ids, each.pad_token_id) for each in tokenizers], within.long()

    def _tables(self) -> list[nn.Embedding]:
        return [cast(nn.Embedding, text.get_input_embeddings()) for text in self.texts]

    @property
    def vocabulary(self) -> Tensor:
        """The word vectors [token word] of all tokens, the towers' side by side."""
        return torch.cat([table.weight.detach() for table in self._tables()], dim=-1)

    def embed(self, ids: Tensor) -> Tensor:
        """The word vectors [n token word] of framed tokens, the towers' side by side."""
        own, _ = self._own_ids(ids)
        return torch.cat([table(each) for table, each in zip(self._tables(), own, strict=True)], dim=-1)

    def read(self, ids: Tensor, vectors: Tensor) -> Codes:
        """The codes of word vectors that stand where `ids` [n token] would be looked up in the tables."""
        own, mask = self._own_ids(ids)
        tables = self._tables()
        parts = vectors.split([table.embedding_dim for table in tables], dim=-1)
        # In place of the table's answer: so positions, masks and pooling are the library's own.
        handles = [
            table.register_forward_hook(lambda *_, part=part: part) for table, part in zip(tables, parts, strict=True)
        ]
        try:
            return self._said(own, mask)
        finally:
            for handle in handles:
                handle.remove()

    def _words(self, number: int, prompts: list[str]):
        return self.tokenizers[number](
            prompts,
            padding="max_length",
            max_length=self._length(number),
            truncation=True,
            return_tensors="pt",
            return_offsets_mapping=True,
        )

    @torch.no_grad()
    def contrast(self, concept: Concept, rows: Rows, templates: Sequence[str], device: torch.device) -> Contrast:
        """The rows of each of the concept's phrases, in each template, beside the anchor's in the same template.

        Each template has one {} where the words go. Tails of different lengths are paired from their subject on. An
        empty anchor is the end row that would follow the words before the gap, then the words after the gap.
        """
        pairs = [
            (sentence(template, phrase), sentence(template, concept.instead))
            for template in templates
            for phrase in concept.phrases
        ]
        codes = self._codes([sentence for pair in pairs for sentence in pair], device)
        present, absent = [], []
        for one, other in pairs:
            said, instead = self._rows(one, rows, codes), self._rows(other, rows, codes)
            count = min(len(said), len(instead))
            present.append(said[:count])
            absent.append(instead[:count])
        return Contrast(torch.cat(present), torch.cat(absent))

    def _codes(self, sentences: Sequence[tuple[str, tuple[int, int]]], device: torch.device) -> dict[str, Tensor]:
        """The codes [token code] of all texts that the rows of sentences are taken from, read together."""
        before = [text[:start].rstrip() for text, (start, stop) in sentences if start == stop]
        texts = list(dict.fromkeys([*(text for text, _ in sentences), *before]))
        return dict(zip(texts, self.encode(texts, device).tokens, strict=True))

    def _rows(self, sentence: tuple[str, tuple[int, int]], rows: Rows, read: Mapping[str, Tensor]) -> Tensor:
        text, (start, stop) = sentence
        codes = read[text]
        if rows == "all":
            return codes
        if start < stop:
            subject = self._last_within(text, start, stop)
            return codes[subject : subject + 1] if rows == "last" else codes[subject:]
        before = text[:start].rstrip()
        gap = self._end(before)
        ending = read[before][gap : gap + 1]
        if rows == "last":
            return ending
        return torch.cat([ending, codes[gap if text[start:].strip() else gap + 1 :]])

    def _end(self, text: str) -> int:
        """The row of the first end token."""
        return int(self._words(0, [text]).attention_mask[0].sum()) - 1

    def _last_within(self, text: str, start: int, stop: int) -> int:
        """The row of the last sub-token within a span of characters."""
        places: list[tuple[int, int]] = self._words(0, [text]).offset_mapping[0].tolist()
        within = [row for row, (here, there) in enumerate(places) if there > here and here < stop and there > start]
        if not within or places[within[-1]][1] < stop:
            room = len(places) - 2
            raise BadInput(
                f"{text[start:stop]!r} does not fit into the {room} tokens this model reads; use fewer words."
            )
        if len(self.tokenizers) == 2 and int(self._words(1, [text]).attention_mask[0].sum()) - 1 != self._end(text):
            raise BadInput(
                "This model's two tokenizers split the same words differently, so their rows cannot be paired."
            )
        return within[-1]

    def resting(self, device: torch.device) -> Tensor:
        """The codes every image reads [n code]: the start code and all others of the empty prompt."""
        with torch.no_grad():
            return self.encode([""], device).tokens[0]


def sentence(template: str, words: str) -> tuple[str, tuple[int, int]]:
    """The template with the words in its gap, and the span of characters they take."""
    if template.count("{}") != 1:
        raise BadInput(f"The template {template!r} needs exactly one {{}}, where the concept goes.")
    before, after = (part.split() for part in template.split("{}"))
    opening, closing = template.partition("{}")[::2]
    left = " ".join(before) + (" " if before and opening[-1:].isspace() and words else "")
    right = (" " if after and closing[:1].isspace() and (words or left) else "") + " ".join(after)
    return left + words + right, (len(left), len(left) + len(words))


def zeros_like(codes: Codes) -> Codes:
    """Codes that say nothing, as XL uses them for the unguided half."""
    return Codes(torch.zeros_like(codes.tokens), None if codes.pooled is None else torch.zeros_like(codes.pooled))
