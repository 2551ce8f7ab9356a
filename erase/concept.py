"""What is erased: a concept, its other wordings, and the anchor that is drawn in its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, field_validator, model_validator

from erase.errors import BadInput

Kind = Literal["style", "object", "nudity", "identity", "attribute"]


# What is drawn in place of a concept when the user names no anchor.
INSTEAD: dict[str, str] = {
    "style": "painting",
    "object": "",
    "nudity": "a person wearing clothes",
    "identity": "a person",
    "attribute": "",
}

TOKEN = re.compile(r"(<[^<>\s]+>(?:_\d+)?)")  # how embeddings that were learnt for a pipeline are called


def _words(text: str) -> str:
    """The text as a tokenizer should see it: Van_Gogh is two words, the learnt token <my_style> one, none is empty."""
    parts = (part if TOKEN.fullmatch(part) else part.replace("_", " ") for part in TOKEN.split(text))
    return " ".join("".join(parts).split())


def in_short(names: Sequence[str], most: int = 4) -> str:
    """The names as a title has room for them: all of a few, else the first and how many more there are."""
    more = f" and {len(names) - most + 1} more" if len(names) > most else ""
    return ", ".join(names[: most - 1] if more else names) + more


class Concept(BaseModel, frozen=True, extra="forbid"):
    """Something a model can draw: a name, other ways of saying it, and the anchor to be drawn in its place.

    Underscores become spaces, except in a learnt token such as <my_style>. Raises BadInput for an empty name or an
    anchor that is the concept itself.
    """

    name: str
    kind: Kind = "object"
    prompts: tuple[str, ...] = ()
    anchor: str | None = None

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            message = first["msg"].removeprefix("Value error, ")
            raise BadInput(f"Concept {where}: {message}." if where else message) from None

    @field_validator("name", "anchor", "prompts")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        for text in [value] if isinstance(value, str) else value or ():
            odd = next((letter for letter in text if not letter.isprintable() and not letter.isspace()), None)
            if odd is not None:
                raise BadInput(f"A concept is words; {text!r} holds the control character {odd!r}. Leave it out.")
        return value

    @field_validator("name", "anchor")
    @classmethod
    def _spell(cls, text: str | None) -> str | None:
        return None if text is None else _words(text)

    @field_validator("prompts")
    @classmethod
    def _spell_all(cls, prompts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(words for words in map(_words, prompts) if words))

    @model_validator(mode="after")
    def _means_something(self) -> Concept:
        if not self.name:
            raise BadInput("A concept needs a name, for example 'Van Gogh'; the given one is empty.")
        if self.anchor is not None:
            self.refuse_own_anchor()
        return self

    def refuse_own_anchor(self) -> None:
        """Raises BadInput if the concept is to be replaced by itself.

        Checked at once for a given anchor, and by methods for the default one, which a kept concept may well be.
        """
        for phrase in (self.name, *self.phrases):
            if phrase.lower() == self.instead.lower():
                raise BadInput(
                    f"The concept {phrase!r} and its anchor are the same words, so nothing would change; "
                    "give another anchor, or '' for nothing in particular."
                )

    @property
    def phrases(self) -> tuple[str, ...]:
        """The texts that stand for the concept: its prompts if it has any, else its name."""
        return self.prompts or (self.name,)

    @property
    def instead(self) -> str:
        """The words drawn in place of the concept; '' is nothing in particular."""
        return INSTEAD[self.kind] if self.anchor is None else self.anchor
