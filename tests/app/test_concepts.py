"""What is kept: of the vocabulary's kind, else of the kind of what is erased, else of the kind that is said."""

from __future__ import annotations

import pytest

from app.concepts import kept
from erase.concept import Concept

STYLE, OBJECT = Concept(name="Van Gogh", kind="style"), Concept(name="cat")


@pytest.mark.parametrize(
    ("base", "erased", "name", "expected"),
    [
        ("mine", [STYLE], "Monet", ("Monet", "style")),
        ("mine", [OBJECT], "Monet", ("Monet", "object")),
        ("mine", [STYLE, OBJECT], "Monet", ("Monet", "object")),
        ("mine", [Concept(name="nudity", kind="nudity")], "a person", ("a person", "object")),
        ("mine", [STYLE], "object:dog", ("dog", "object")),
        ("mine", [OBJECT], "style: Monet", ("Monet", "style")),
        ("mine", [STYLE], "Star Wars: a film", ("Star Wars: a film", "style")),
        ("pocket-sd", [STYLE], "Dogs", ("Dogs", "object")),
        ("pocket-sd", [OBJECT], "Watercolor", ("Watercolor", "style")),
    ],
)
def test_kept_concepts_have_a_kind(base: str, erased: list[Concept], name: str, expected: tuple[str, str]) -> None:
    (concept,) = kept(base, [name], erased)
    assert (concept.name, concept.kind) == expected
