"""From names on the command line to Concepts; a bundled model is asked only for words it was taught."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from erase.concept import INSTEAD, Concept, Kind
from erase.errors import BadInput, match, nearest, plain
from erase.methods.guide import names_seeds
from generators.pocket.canvas import words
from generators.pocket.faces.words import attribute


def concepts(base: str, names: Sequence[str], kind: str | None, anchor: str | None = None) -> tuple[Concept, ...]:
    """One Concept per name, of the given kind or the kind the name has; BadInput for empty and unknown ones."""
    kinds = get_args(Kind)
    asked = None if kind is None else match(kind, kinds, "kind")
    made = []
    for name in names:
        spelled, known = WORDS[base](name) if base in WORDS else (name, None)
        if anchor and anchor.strip():
            check_anchor(base, anchor)
        made.append(Concept(name=spelled, kind=asked or known or "object", anchor=anchor))
    return tuple(made)


def kept(base: str, names: Sequence[str], erased: Sequence[Concept]) -> tuple[Concept, ...]:
    """Concepts to keep; without a vocabulary they are of the kind of what is erased, unless said as style:Monet."""
    kinds = {concept.kind for concept in erased}
    usual = kinds.pop() if len(kinds) == 1 else "object"
    made: list[Concept] = []
    for name in names:
        said, colon, rest = name.partition(":")
        asked = said if colon and said in get_args(Kind) else None
        unknown = "object" if usual == "nudity" else usual
        kind = asked if base in WORDS else asked or unknown
        made += concepts(base, [rest.strip() if asked else name], kind)
    return tuple(made)


def check_anchor(base: str, anchor: str) -> None:
    """BadInput for an anchor that the bundled model was never taught; the bundled GAN reads none."""
    if base == "pocket-sd" and plain(anchor) not in map(plain, INSTEAD.values()):
        _known(anchor, "anchor")
    elif base == "pocket-gan":
        raise BadInput("pocket-gan reads no words, so --anchor has no effect. Leave it out.")


def already_erased(what: Sequence[Concept], stacked: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence for each concept that one of the edits it is stacked on, by what is on record of them, has erased."""
    gone = {plain(concept["name"]): concept["name"] for about in stacked for concept in about.get("concepts", ())}
    return [
        f"{gone[plain(concept.name)]!r} has been erased from this run before; it is erased once more."
        for concept in what
        if plain(concept.name) in gone
    ]


def check_synonyms(base: str, erased: Sequence[Concept], keep: Sequence[Concept]) -> None:
    """BadInput when a kept concept is another word of the bundled model's captions for one that is to be erased."""
    if base not in WORDS:
        return
    gone = {_label(concept.name): concept.name for concept in erased}
    for concept in keep:
        if (same := gone.get(_label(concept.name))) is not None and plain(same) != plain(concept.name):
            raise BadInput(
                f"{concept.name!r} is another word for {same!r}, so it cannot be kept while that is erased. Leave it "
                "out of --keep."
            )


def _label(name: str) -> str:
    """The label whose name or synonym this is; else the name itself."""
    for label, others in words.SYNONYMS.items():
        if plain(name) in (plain(label), plain(words.spoken(label)), *map(plain, others)):
            return label
    return plain(name)


def _of_face(name: str) -> tuple[str, str | None]:
    """A person by seeds; or an attribute of a face, or several with `and`, checked against what pocket-gan draws."""
    if names_seeds(name):
        return name, "identity"
    for clause in name.split(" and "):
        attribute(clause)
    return name, "attribute"


def _known(name: str, what: str = "concept") -> tuple[str, str | None]:
    """A name as pocket-sd's captions spell it, and its kind: a label, a synonym, or a phrase of taught words."""
    kinds = dict.fromkeys(words.THEMES, "style") | dict.fromkeys(words.OBJECTS, "object")
    for label, kind in kinds.items():
        if plain(name) in (plain(label), plain(words.spoken(label))):
            return words.spoken(label), kind
        if plain(name) in words.SYNONYMS[label]:
            return name, kind
    taught = set(words.vocabulary())
    strange = [word for word in plain(name).split() if word not in taught]
    if strange:
        labels = [words.spoken(label) for label in kinds]
        synonyms = {word for row in words.SYNONYMS.values() for word in row} - set(map(plain, labels))
        raise nearest(name, [*labels, *synonyms], f"{what} of pocket-sd")
    return name, None


WORDS = {"pocket-sd": _known, "pocket-gan": _of_face}
