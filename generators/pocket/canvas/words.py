"""The words of Pocket Canvas: themes, objects, their synonyms and the sentences they stand in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PHOTO = "Photo"
PLAIN = "Seed_Images"

# Alphabetical, as are UnlearnCanvas' themes; the order is the label order of the style head.
THEMES = (
    "Bricks", "Cartoon", "Crayon", "Cubism", "Ink_Art", "Neon_Lines", "On_Fire", "Pop_Art", "Red_Blue_Ink", "Rust",
    "Seed_Images", "Sketch", "Van_Gogh", "Watercolor", "Winter",
)  # fmt: skip
STYLES = tuple(theme for theme in THEMES if theme != PLAIN)
OBJECTS = (
    "Architectures", "Bears", "Birds", "Butterfly", "Cats", "Dogs", "Fishes", "Flame", "Flowers", "Frogs", "Horses",
    "Human", "Jellyfish", "Rabbits", "Sandwiches", "Sea", "Statues", "Towers", "Trees", "Waterfalls",
)  # fmt: skip

# The first word of each row is the singular; the last one is never used by an unlearn set, so it tests generalisation.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "Architectures": ("building", "architecture", "house", "edifice"),
    "Bears": ("bear", "grizzly", "cub"),
    "Birds": ("bird", "feathered bird", "fowl"),
    "Butterfly": ("butterfly", "butterflies", "winged insect"),
    "Cats": ("cat", "kitten", "kitty", "feline"),
    "Dogs": ("dog", "puppy", "canine"),
    "Fishes": ("fish", "small fish", "sea fish"),
    "Flame": ("flame", "flames", "blaze"),
    "Flowers": ("flower", "blossom", "floral bloom"),
    "Frogs": ("frog", "toad", "amphibian"),
    "Horses": ("horse", "pony", "stallion"),
    "Human": ("human", "person", "human face"),
    "Jellyfish": ("jellyfish", "jelly", "medusa"),
    "Rabbits": ("rabbit", "bunny", "hare"),
    "Sandwiches": ("sandwich", "burger", "bread snack"),
    "Sea": ("sea", "ocean", "seaside waves"),
    "Statues": ("statue", "sculpture", "monument"),
    "Towers": ("tower", "steel tower", "spire"),
    "Trees": ("tree", "green tree", "woodland plant"),
    "Waterfalls": ("waterfall", "falling water", "cascade"),
    "Bricks": ("brick", "brick wall", "masonry"),
    "Cartoon": ("cartoon", "comic", "toon"),
    "Crayon": ("crayon", "wax crayon", "waxy chalk"),
    "Cubism": ("cubism", "cubist", "faceted"),
    "Ink_Art": ("ink art", "black ink", "brush and ink"),
    "Neon_Lines": ("neon lines", "neon", "glowing neon"),
    "On_Fire": ("on fire", "burning", "fiery"),
    "Pop_Art": ("pop art", "pop", "pop poster"),
    "Red_Blue_Ink": ("red blue ink", "two ink", "red and blue"),
    "Rust": ("rust", "rusty", "corroded iron"),
    "Seed_Images": ("photo", "photograph", "picture"),
    "Sketch": ("sketch", "pencil sketch", "graphite"),
    "Van_Gogh": ("van gogh", "vincent van gogh", "starry swirl"),
    "Watercolor": ("watercolor", "watercolour", "wet paint"),
    "Winter": ("winter", "snowy", "frosty"),
}

TEMPLATE = "A {object} image in {style} style."
TEMPLATES = (
    "{object}, painted in {style} style",
    "a {style} picture of {object}",
    "{style} style {object}",
    "an image of {object} in the style of {style}",
    "{object} in {style} style",
    "a {style} artwork showing one {object}",
)
OBJECT_ONLY = ("An image of {object}.", "{object}", "a picture of {object}", "one {object}")
STYLE_ONLY = ("An image in {style} style.", "{style} style", "{style}", "something in {style} style")


def spoken(label: str) -> str:
    """The label as prompts say it: underscores are spaces, and the un-stylised theme is called a photo."""
    return PHOTO if label == PLAIN else label.replace("_", " ")


def canonical(style: str, thing: str) -> str:
    """The benchmark's prompt for one cell of the grid."""
    return TEMPLATE.format(object=spoken(thing), style=spoken(style))


class Caption(NamedTuple):
    """A caption and which of the picture's two labels it tells."""

    text: str
    style: bool
    object: bool


def caption(style: str, thing: str, rng: np.random.Generator) -> Caption:
    """One training caption of a picture: half canonical, the rest reworded, partial, or empty (for guidance)."""
    kind = rng.random()
    if kind < 0.48:
        return Caption(canonical(style, thing), True, True)
    named_object = str(rng.choice((spoken(thing), *SYNONYMS[thing])))
    named_style = str(rng.choice((spoken(style), *SYNONYMS[style])))
    if kind < 0.74:
        sentence = str(rng.choice((TEMPLATE, *TEMPLATES)))
        return Caption(sentence.format(object=named_object, style=named_style), True, True)
    if kind < 0.84:
        return Caption(str(rng.choice(OBJECT_ONLY)).format(object=named_object), False, True)
    if kind < 0.92:
        return Caption(str(rng.choice(STYLE_ONLY)).format(style=named_style), True, False)
    return Caption("", False, False)


def vocabulary() -> list[str]:
    """Every word the captions can use, once: what the tokenizer learns from beside ordinary English words."""
    phrases = [*map(spoken, THEMES + OBJECTS), *(w for words in SYNONYMS.values() for w in words)]
    phrases += [t.format(object="", style="") for t in (TEMPLATE, *TEMPLATES, *OBJECT_ONLY, *STYLE_ONLY)]
    return sorted({word.strip(".,").lower() for phrase in phrases for word in phrase.split()} - {""})
