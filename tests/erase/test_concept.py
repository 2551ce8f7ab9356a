"""How a concept's name becomes what a tokenizer reads, and what a title says of many."""

from __future__ import annotations

import pytest

from erase.concept import Concept, in_short
from erase.errors import BadInput


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("Van_Gogh", "Van Gogh"),
        (" Van__Gogh  ", "Van Gogh"),
        ("<my_style>", "<my_style>"),
        ("<my_style>_1", "<my_style>_1"),
        ("a_cat in <my_style>_1 and <a-b_c>_of", "a cat in <my_style>_1 and <a-b_c> of"),
        ("a < b_c > d", "a < b c > d"),
        ("< b_c", "< b c"),
        ("Washington, D.C.", "Washington, D.C."),
    ],
)
def test_underscores_are_spaces_except_in_a_learnt_token(given, read):
    assert Concept(name=given, prompts=(given,), anchor="").name == read
    assert Concept(name=given, prompts=(given,), anchor="").prompts == (read,)
    assert Concept(name="x", anchor=given).instead == read


@pytest.mark.parametrize("text", ["a\x1b[2J", "\u202e", "a\0"])
def test_control_characters_are_no_words(text):
    for fields in ({"name": text}, {"name": "a", "anchor": text}, {"name": "a", "prompts": (text,)}):
        with pytest.raises(BadInput, match="control character"):
            Concept(**fields)


def test_titles_hold_a_few_names():
    assert in_short(["a"]) == "a"
    assert in_short(["a", "b", "c", "d"]) == "a, b, c, d"
    assert in_short([str(number) for number in range(300)]) == "0, 1, 2 and 297 more"
