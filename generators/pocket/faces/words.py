"""The words of Pocket Faces: attributes, their synonyms and the sentences they stand in (needs no drawing package)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from erase.errors import nearest, plain

ATTRIBUTES: tuple[str, ...] = ("eyeglasses", "hat", "beard", "bald", "smile", "blond hair")

NOUNS = ("face", "person", "human face", "cartoon face", "portrait", "head")
TEMPLATES = ("a {}", "a {}", "an image of a {}", "a picture of a {}", "a drawing of a {}", "one {}")

# Three ways to say an attribute: before the noun, after "with", as a clause.  A word given twice is said more often.
BEFORE: dict[str, tuple[str, ...]] = {
    "beard": ("bearded",), "bald": ("bald", "bald-headed", "hairless"),
    "smile": ("smiling", "smiling", "happy", "grinning", "laughing"),
    "blond hair": ("blond", "blonde", "fair-haired"), "eyeglasses": ("bespectacled",),
}  # fmt: skip
WITH: dict[str, tuple[str, ...]] = {
    "eyeglasses": ("eyeglasses", "eyeglasses", "glasses", "spectacles"),
    "hat": ("a hat", "a hat", "a cap", "headgear"),
    "beard": ("a beard", "a beard", "facial hair", "a beard or a moustache", "whiskers"),
    "bald": ("a bald head", "no hair", "a shaved head"),
    "smile": ("a smile", "a smile", "a big smile", "a grin"),
    "blond hair": ("blond hair", "blond hair", "blonde hair", "yellow hair"),
}
CLAUSE: dict[str, tuple[str, ...]] = {
    "eyeglasses": ("wearing eyeglasses", "wearing glasses", "wearing spectacles"),
    "hat": ("wearing a hat", "wearing a cap"),
    "smile": ("who is smiling",),
    "bald": ("who is bald",),
}
WITHOUT: dict[str, tuple[str, ...]] = {
    "eyeglasses": ("without eyeglasses", "without glasses", "without spectacles"),
    "hat": ("without a hat", "without a hat", "without a cap"),
    "beard": ("without a beard", "clean-shaven", "without facial hair"),
    "bald": ("who is not bald", "who is not bald"),
    "smile": ("without a smile", "who is not smiling", "looking serious"),
    "blond hair": ("without blond hair", "without blonde hair"),
}

# Zero-shot pairs: (present, absent).  Average the text codes of each side.
PROMPTS: dict[str, tuple[tuple[str, str], ...]] = {
    "eyeglasses": (
        ("a face with eyeglasses", "a face without eyeglasses"),
        ("a person wearing glasses", "a person without glasses"),
    ),
    "hat": (("a face with a hat", "a face without a hat"), ("a person wearing a hat", "a person without a hat")),
    "beard": (("a face with a beard", "a face without a beard"), ("a bearded person", "a person, clean-shaven")),
    "bald": (("a bald face", "a face who is not bald"), ("a person with a bald head", "a person who is not bald")),
    "smile": (("a smiling face", "a face without a smile"), ("a person with a smile", "a person, looking serious")),
    "blond hair": (
        ("a face with blond hair", "a face without blond hair"),
        ("a person with blonde hair", "a person without blonde hair"),
    ),
}


def attribute(name: str) -> str:
    """The attribute of Pocket Faces that a word means: its own name or a synonym. BadInput names the nearest."""
    for known in ATTRIBUTES:
        said = (known, *BEFORE.get(known, ()), *WITH.get(known, ()))
        if plain(name) in {plain(word).removeprefix("a ") for word in said}:
            return known
    raise nearest(name, ATTRIBUTES, "attribute of Pocket Faces")


def _pick(rng: np.random.Generator, among: Sequence[str]) -> str:
    return among[int(rng.integers(len(among)))]


def _listed(things: Sequence[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def face_caption(labels: Mapping[str, bool], rng: np.random.Generator) -> str:
    """One training caption of a face: mostly what is present, some of what is absent, sometimes a part, or empty."""
    kind = rng.random()
    if kind < 0.06:
        return ""
    say_present, say_absent = (0.94, 0.25) if kind < 0.8 else (0.5, 0.2) if kind < 0.92 else (0.3, 0.7)
    before: list[str] = []
    held: list[str] = []
    clauses: list[str] = []
    lacking: list[str] = []
    for place in rng.permutation(len(ATTRIBUTES)):
        attribute = ATTRIBUTES[int(place)]
        if not labels[attribute]:
            if rng.random() < say_absent:
                lacking.append(_pick(rng, WITHOUT[attribute]))
        elif rng.random() < say_present:
            way = rng.random()
            if way < 0.35 and attribute in BEFORE:
                before.append(_pick(rng, BEFORE[attribute]))
            elif way < 0.6 and attribute in CLAUSE:
                clauses.append(_pick(rng, CLAUSE[attribute]))
            else:
                held.append(_pick(rng, WITH[attribute]))
    said = _pick(rng, TEMPLATES).format(" ".join([*before, _pick(rng, NOUNS)]))
    if held:
        said += f" with {_listed(held)}"
    if clauses:
        said += f" {_listed(clauses)}"
    if lacking:
        said += f"{',' if held or clauses else ''} {_listed(lacking)}"
    return said


def words() -> list[str]:
    """Every word the captions and prompts can use, once: what the tokenizer learns from."""
    phrases = [*NOUNS, *TEMPLATES, *ATTRIBUTES, "with and"]
    phrases += [phrase for table in (BEFORE, WITH, CLAUSE, WITHOUT) for row in table.values() for phrase in row]
    phrases += [phrase for pairs in PROMPTS.values() for pair in pairs for phrase in pair]
    return sorted({word.strip(".,") for phrase in phrases for word in phrase.replace("{}", "").split()} - {""})
