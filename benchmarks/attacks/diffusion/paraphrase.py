"""The same wish in other words: synonyms, other sentences, misspellings, word order, words nearby in the model's table.

Everything is offline: synonyms and sentences are those of the pocket vocabulary, misspellings are made from the name,
and near words are read from the model's own word vectors, the suite's other labels and their synonyms left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch.nn import functional as F

from benchmarks.attacks.engine import AttackTarget, Candidate, Presets, budgets, following, usable
from benchmarks.suites.prompts import SENTENCES, Row
from benchmarks.suites.suite import Suite
from erase.errors import plain
from erase.rng import stream
from erase.work import Work
from generators.pocket.canvas.words import OBJECT_ONLY, STYLE_ONLY, SYNONYMS, TEMPLATES


class Paraphrase(BaseModel, frozen=True, extra="forbid"):
    """Says the concept in other words: synonyms, sentences, misspellings, word order, near words."""

    paper: ClassVar[str] = "synonyms and rewording, without a search"
    presets: ClassVar[Presets] = budgets(paper=60, standard=30, quick=12)
    added: ClassVar[int] = 0

    budget: int = Field(12, ge=1, le=1000, description="wordings per row: synonyms first, then the other kinds in turn")
    near: int = Field(10, ge=0, le=1000, description="words of the model's vocabulary nearest to the concept")

    def begin(self, aim: AttackTarget, row: Row) -> Iterator[Candidate]:
        """The row's wordings, each once."""
        synonyms = [self._said(row, aim, word) for word in SYNONYMS.get(aim.target.label, ())]
        kinds = (
            sentences(aim.suite, aim.target.kind, aim.target.label, row.prompt),
            [self._said(row, aim, word) for word in misspelt(aim.words, stream(aim.seed, "spelling", row.key))],
            reordered(row.prompt, aim.words),
            [self._said(row, aim, word) for word in self._near(aim)],
        )
        turns = [text for turn in zip_longest(*kinds) for text in turn]
        wordings = [text for text in dict.fromkeys([*synonyms, *turns]) if text and plain(text) != plain(row.prompt)]
        for spent, text in enumerate(wordings[: self.budget], 1):
            yield Candidate(row, text, spent)

    def advance(self, aim: AttackTarget, searches: Sequence[Iterator[Candidate]]) -> Work[list[Candidate | None]]:
        """The next wording of each row."""
        return following(searches)

    def _said(self, row: Row, aim: AttackTarget, word: str) -> str | None:
        """The prompt with another word for the concept; None where the prompt does not name it."""
        names = sorted({aim.words, *SYNONYMS.get(aim.target.label, ())}, key=len, reverse=True)
        text, found = _named(names).subn(lambda _: word, row.prompt)
        return text if found else None

    @torch.no_grad()
    def _near(self, aim: AttackTarget) -> list[str]:
        """The words nearest to the concept's mean word vector that are no label's own."""
        words, table = usable(aim.model), aim.model.vocabulary.float()
        own = aim.model.tokens(aim.words)
        if not self.near or not own:
            return []
        taken = {plain(word) for label in (*aim.suite.styles, *aim.suite.objects) for word in
                 (aim.suite.spoken(label), *SYNONYMS.get(label, ()))}  # fmt: skip
        close = F.cosine_similarity(table[own].mean(0, keepdim=True), table[words]).argsort(descending=True)
        spelt = (aim.model.spell([int(words[place])]) for place in close.tolist()[: 4 * self.near + 40])
        fit = [word for word in spelt if len(word) > 2 and word.isalpha() and plain(word) not in taken]
        return list(dict.fromkeys(fit))[: self.near]


def sentences(suite: Suite, kind: str, label: str, prompt: str) -> list[str]:
    """Other sentences about the concept and what the prompt shows beside it; about it alone where that is nothing."""
    others = suite.objects if kind == "style" else suite.styles
    beside = next((other for other in others if _named([suite.spoken(other)]).search(prompt)), None)
    concept = suite.spoken(label)
    if beside is None:
        alone = STYLE_ONLY if kind == "style" else OBJECT_ONLY
        return [text.format(style=concept, object=concept) for text in alone]
    both = {"style": concept, "object": suite.spoken(beside)}
    if kind == "object":
        both = {"style": both["object"], "object": concept}
    return [text.format(**both) for text in (*TEMPLATES, *SENTENCES[kind])]


def misspelt(name: str, draw: torch.Generator, count: int = 6) -> list[str]:
    """The name with a letter doubled, dropped or swapped with its neighbour, and written as one word."""
    found = [name.replace(" ", "")] if " " in name else []
    inner = [place for place in range(1, len(name) - 1) if name[place - 1 : place + 2].isalpha()]
    for turn in range(count if inner else 0):
        at = inner[int(torch.randint(len(inner), (1,), generator=draw))]
        made = (name[at] * 2, "", name[at + 1] + name[at])[turn % 3]
        found.append(name[:at] + made + name[at + (2 if turn % 3 == 2 else 1) :])
    return [word for word in dict.fromkeys(found) if word != name]


def reordered(prompt: str, concept: str) -> list[str]:
    """The concept first, last, or said twice; then the sentence's words backwards."""
    rest = " ".join(_named([concept]).sub("", prompt).strip(" .").split())
    backwards = " ".join(reversed(prompt.strip(" .").split()))
    return [f"{concept}, {rest}", f"{rest}, {concept}", f"{concept} {concept}, {prompt}", backwards]


def _named(names: Sequence[str]) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(re.escape(name) for name in names) + r")\b", re.IGNORECASE)
