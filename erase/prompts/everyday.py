"""Everyday words: what an eraser that needs a retain set keeps when the user names little or nothing.

The nouns are the categories of COCO (arXiv 1405.0312); AdvUnlearn retains the same kind of list. Scenes, people and
manners of drawing are ours, for nouns alone leave styles unprotected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from erase.concept import Concept
from erase.errors import plain

NOUNS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup",
    "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza",
    "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse",
    "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase",
    "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
SCENES = (
    "a beach", "a forest", "a mountain", "a river", "the sea", "the sky at night", "a garden with flowers", "a city",
    "a street in the rain", "a house", "a castle", "a church", "a bridge", "a kitchen", "a field of grass", "a tree",
    "a smiling woman", "an old man", "a child", "a crowd of people", "a portrait of a person",
)  # fmt: skip
MANNERS = (
    "a photo", "a painting", "an oil painting", "a watercolor", "a pencil sketch", "a cartoon", "a drawing",
    "a pixel drawing", "a black and white picture", "a poster", "a mosaic", "a colourful picture",
)  # fmt: skip


def everyday(erased: Sequence[Concept]) -> list[str]:
    """Everyday prompts, none of which holds a word of the erased concepts."""
    prompts = (*(f"a photo of {noun}" for noun in NOUNS), *SCENES, *MANNERS)
    return without(prompts, erased)


def without(prompts: Iterable[str], erased: Sequence[Concept]) -> list[str]:
    """The distinct prompts that share no word of weight with the names of erased concepts, singular or plural."""
    gone = {_stem(word) for concept in erased for phrase in (concept.name, *concept.phrases) for word in _words(phrase)}
    return [prompt for prompt in dict.fromkeys(prompts) if not gone & {_stem(word) for word in _words(prompt)}]


def _words(text: str) -> list[str]:
    return [word for word in plain(text).split() if word not in ("a", "an", "the", "of", "in", "with", "and")]


def _stem(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 else word
