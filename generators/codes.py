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

        Each template has one {} where the words go. Tails of different lengths are paired from their subject on.
        """
        said = [_sentence(template, phrase) for template in templates for phrase in concept.phrases]
        instead = [_sentence(template, concept.instead) for template in templates for _ in concept.phrases]
        codes = self.encode([text for text, _ in said + instead], device).tokens
        starts = [self._subject(text, span) for text, span in said + instead]
        length = codes.shape[1]
        present, absent = [], []
        for row in range(len(said)):
            here, there = starts[row], starts[row + len(said)]
            count = {"last": 1, "tail": length - max(here, there), "all": length}[rows]
            here, there = (0, 0) if rows == "all" else (here, there)
            present.append(codes[row, here : here + count])
            absent.append(codes[row + len(said), there : there + count])
        return Contrast(torch.cat(present), torch.cat(absent))

    def _subject(self, text: str, span: tuple[int, int]) -> int:
        """The row of the last sub-token within a span of characters; of the first end token if the span is empty."""
        words = self._words(0, [text])
        end = int(words.attention_mask[0].sum()) - 1
        if span[0] == span[1]:
            return end
        places: list[tuple[int, int]] = words.offset_mapping[0].tolist()
        within = [
            row for row, (start, stop) in enumerate(places) if stop > start and start < span[1] and stop > span[0]
        ]
        if not within or places[within[-1]][1] < span[1]:
            phrase, room = text[span[0] : span[1]], len(places) - 2
            raise BadInput(f"{phrase!r} does not fit into the {room} tokens this model reads; use fewer words.")
        if len(self.tokenizers) == 2 and int(self._words(1, [text]).attention_mask[0].sum()) - 1 != end:
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
