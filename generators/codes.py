"""Prompts into codes, and the rows of them that belong to a concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from erase.errors import BadInput
from erase.model import Codes, Concept, Contrast, Rows
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
        if len(self.texts) == 1:
            text, words = self.texts[0], self._words(0, prompts)
            mask = words.attention_mask.to(device) if getattr(text.config, "use_attention_mask", False) else None
            return Codes(text(words.input_ids.to(device), attention_mask=mask)[0])
        # XL reads the layer before the last of both towers, and the second tower's pooled vector beside them.
        said = [
            text(self._words(number, prompts).input_ids.to(device), output_hidden_states=True)
            for number, text in enumerate(self.texts)
        ]
        return Codes(torch.cat([each.hidden_states[-2] for each in said], dim=-1), said[1].text_embeds)

    def _words(self, number: int, prompts: list[str]):
        tokenizer = self.tokenizers[number]
        length = min(tokenizer.model_max_length, self.texts[number].config.max_position_embeddings)
        return tokenizer(
            prompts,
            padding="max_length",
            max_length=length,
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
        present, absent = [], []
        for template in templates:
            for phrase in concept.phrases:
                said = self._rows(_sentence(template, phrase), rows, device)
                instead = self._rows(_sentence(template, concept.instead), rows, device)
                count = min(len(said), len(instead))
                present.append(said[:count])
                absent.append(instead[:count])
        return Contrast(torch.cat(present), torch.cat(absent))

    def _rows(self, sentence: tuple[str, tuple[int, int]], rows: Rows, device: torch.device) -> Tensor:
        text, (start, stop) = sentence
        codes = self.encode([text], device).tokens[0]
        if rows == "all":
            return codes
        if start < stop:
            subject = self._last_within(text, start, stop)
            return codes[subject : subject + 1] if rows == "last" else codes[subject:]
        before = text[:start].rstrip()
        gap = self._end(before)
        ending = self.encode([before], device).tokens[0, gap : gap + 1]
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


def _sentence(template: str, words: str) -> tuple[str, tuple[int, int]]:
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
