"""Pocket Faces: CelebA-HQ in miniature — cartoon faces at 64 px whose attributes are known exactly.

    python -m generators.pocket.faces.draw --sheet OUT.png  # rows: anything, then one attribute present beside absent

The parts are python-avatars' drawings (MIT), assembled as SVG and rendered by resvg.  A label says what is *visible*:
a hat covers a bald head, so hat and bald exclude each other; everything else is drawn independently.  Dice decide on
one named part after another: a random stream (`face`), or the coordinates of a code (`face_codes`).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import cv2
import numpy as np
import python_avatars as parts
import resvg_py
from numpy.typing import NDArray
from python_avatars.core import _get_path
from python_avatars.svg_parser import SVGParser

from generators.pocket.faces.words import ATTRIBUTES, PROMPTS, face_caption, words

__all__ = ["ATTRIBUTES", "PROMPTS", "RATES", "face", "face_caption", "sheet", "words"]

SIDE = 64
_ALIGNED = "translate(50,53) scale(.532) translate(-132,-104)"  # eyes and mouth in one place, as CelebA-HQ's are
_WORK = 96  # drawn larger and averaged down: thin frames and moustaches stay even

# Share of faces with each attribute.  Bald is 36 % of the hatless; blond is 45 % of those whose hair shows, and hair
# shows on 64 % of faces with a hat as on 64 % without, so blond tells nothing about hats.
RATES: dict[str, float] = {
    "eyeglasses": 0.35, "hat": 0.30, "beard": 0.35, "bald": 0.252, "smile": 0.45, "blond hair": 0.288,
}  # fmt: skip
_BALD_IF_HATLESS = 0.36
_BLOND_IF_SHOWN = 0.45

_GLASSES = ("PRESCRIPTION_2", "ROUND", "PRESCRIPTION_2", "ROUND", "WAYFARERS", "SUNGLASSES", "KURT")
_HATS = ("HAT", "WINTER_HAT_2", "WINTER_HAT_3", "WINTER_HAT_4")
_BEARDS = ("BEARD_LIGHT", "BEARD_MAGESTIC", "BEARD_MEDIUM", "WICK_BEARD", "MOUSTACHE_FANCY", "MOUSTACHE_MAGNUM")
_SMILES = ("SMILE", "BIG_SMILE")
_STRAIGHT_FACES = ("SERIOUS", "SAD")  # the package's open frowns read as laughs or moustaches at 64 px
_EYES = ("DEFAULT", "DEFAULT", "DEFAULT", "SIDE", "HAPPY", "SURPRISED")
_BROWS = ("DEFAULT_NATURAL", "RAISED_EXCITED_NATURAL", "FLAT_NATURAL", "DEFAULT")
_NOSES = ("DEFAULT", "SMALL", "WIDE")
_SHORT_HAIR = (
    "SHORT_FLAT", "SHORT_ROUND", "SHORT_CURLY", "SHORT_WAVED", "SHAGGY", "PIXIE", "QUIFF", "POMPADOUR", "MOWGLI", "BUN",
)  # fmt: skip
_LONG_HAIR = ("BOB", "MIA_WALLACE", "LONG_NOT_TOO_LONG", "STRAIGHT_1", "STRAIGHT_STRAND", "CURVY", "FRO", "LOOSE_HAIR")
_HAIR_UNDER_HAT = ("BOB", "MIA_WALLACE", "LONG_NOT_TOO_LONG", "STRAIGHT_STRAND", "LOOSE_HAIR")

# Skins from light to dark, each with the hair colours that stand out against it.
_DARK = ("#241814", "#3B2620")
_BROWN = ("#5A3527", "#724133")
_SKINS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("#FFDBB4", (*_DARK, *_BROWN, "#A0462A", "#C2371A", "#9A9DA8")),
    ("#F3C9A0", (*_DARK, *_BROWN, "#A0462A", "#C2371A", "#8B8F9B")),
    ("#E3AE7F", (*_DARK, *_BROWN, "#B02F16", "#7B808C")),
    ("#C98A5C", (*_DARK, *_DARK, "#5A3527", "#686C78")),
    ("#A6683F", _DARK),
    ("#855033", _DARK),
)
_BLONDS = ("#F4D35E", "#F8E08A", "#EBC44C")
_BLOND_BEARD = "#9A6C1E"  # on light skins a blond's beard must be darker than the hair to be seen at all
_LIGHT_SKINS = 3
_HAT_COLOURS = ("#D94343", "#3A6FC4", "#2F9B63", "#7B4FB5", "#E07A2B", "#2B2F3A", "#D65C9A")


class Dice(Protocol):
    """What decides on a face, one named part at a time."""

    def share(self, part: str) -> float:
        """A number that is uniform in [0, 1)."""
        ...

    def number(self, part: str, of: int) -> int:
        """One of the numbers below `of`, all equally likely."""
        ...


class Thrown:
    """Dice that are thrown: the parts' names do not matter, their order does."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def share(self, part: str) -> float:
        return float(self.rng.random())

    def number(self, part: str, of: int) -> int:
        return int(self.rng.integers(of))


def _pick(dice: Dice, part: str, among: Sequence[str]) -> str:
    return among[dice.number(part, len(among))]


def _between(dice: Dice, part: str, low: float, high: float) -> float:
    return low + (high - low) * dice.share(part)


def _labels(dice: Dice) -> tuple[dict[str, bool], bool]:
    """Draws the attributes, and whether any head hair shows."""
    draws = [dice.share(part) for part in ("eyeglasses", "hat", "beard", "shaved", "smile", "blond", "spare")]
    hat = bool(draws[1] < RATES["hat"])
    shaved = bool(draws[3] < _BALD_IF_HATLESS)  # under a hat the same draw decides whether hair hangs out
    return {
        "eyeglasses": bool(draws[0] < RATES["eyeglasses"]),
        "hat": hat,
        "beard": bool(draws[2] < RATES["beard"]),
        "bald": shaved and not hat,
        "smile": bool(draws[4] < RATES["smile"]),
        "blond hair": bool(draws[5] < _BLOND_IF_SHOWN) and not shaved,
    }, not shaved


def _hair(name: str, colour: str) -> list[ElementTree.Element]:
    """The drawing of a hair style alone, to hang it under a hat."""
    drawn = SVGParser(_get_path(parts.HairType, parts.HairType[name].value))
    tinted = drawn.get_element_by_id("Hair-Color")
    if tinted is not None:
        tinted.set_attr("fill", colour)
    return [child.tree for child in drawn.children() if child.tree is not None]


def _background(dice: Dice) -> str:
    """A two-colour gradient that fills the picture, pale enough to let every skin and hair stand out."""
    hue, spread = _between(dice, "hue", 0, 360), _between(dice, "second hue", 25, 90)
    low, high = (f"hsl({h % 360:.0f},{s:.0f}%,{v:.0f}%)" for h, s, v in ((hue, 60, 84), (hue + spread, 52, 66)))
    turn = _between(dice, "slope", 0, 360)
    return (
        f'<defs><linearGradient id="sky" gradientTransform="rotate({turn:.0f},.5,.5)"><stop stop-color="{low}"/>'
        f'<stop offset="1" stop-color="{high}"/></linearGradient></defs>'
        '<rect width="100" height="100" fill="url(#sky)"/>'
    )


def _drawing(dice: Dice, labels: dict[str, bool], hair_shows: bool) -> str:
    """The face as one SVG group in python-avatars' own 264 × 280 frame."""
    tone = dice.number("skin", len(_SKINS))
    skin, natural = _SKINS[tone]
    blond = labels["blond hair"]
    hair_colour = _pick(dice, "blond shade", _BLONDS) if blond else _pick(dice, "hair colour", natural)
    if labels["hat"]:
        style = _pick(dice, "hair under hat", _HAIR_UNDER_HAT)
    elif dice.share("hair length") < 0.5:
        style = _pick(dice, "short hair", _SHORT_HAIR)
    else:
        style = _pick(dice, "long hair", _LONG_HAIR)
    hat = parts.HatType[_pick(dice, "hats", _HATS)]
    beard = _pick(dice, "beards", _BEARDS) if labels["beard"] else "NONE"
    avatar: Any = parts.Avatar  # its annotations refuse what it documents: any hair or hat on top, any colour
    svg = avatar(
        style=parts.AvatarStyle.TRANSPARENT,
        top=hat if labels["hat"] else parts.HairType[style] if hair_shows else parts.HairType.NONE,
        hat_color=_pick(dice, "hat colour", _HAT_COLOURS),
        eyebrows=parts.EyebrowType[_pick(dice, "brows", _BROWS)],
        eyes=parts.EyeType[_pick(dice, "eyes", _EYES)],
        nose=parts.NoseType[_pick(dice, "nose", _NOSES)],
        mouth=parts.MouthType[_pick(dice, "mouth", _SMILES if labels["smile"] else _STRAIGHT_FACES)],
        facial_hair=parts.FacialHairType[beard],
        facial_hair_color=_BLOND_BEARD if blond and tone < _LIGHT_SKINS else hair_colour,
        skin_color=skin,
        hair_color=hair_colour,
        accessory=parts.AccessoryType[_pick(dice, "glasses", _GLASSES)]
        if labels["eyeglasses"]
        else parts.AccessoryType.NONE,
        clothing=parts.ClothingType.SHIRT_V_NECK,  # its collar is all that is seen
    ).render()
    root = ElementTree.fromstring(svg)
    by_id = {element.get("id"): element for element in root.iter()}
    top, head, mouth = by_id["transparent_Top"], by_id["transparent_Face"], by_id["transparent_Mouth"]
    if labels["hat"] and hair_shows:
        for place, element in enumerate(_hair(style, hair_colour)):
            top.insert(place, element)
    # At 64 px the package's smile is a handful of pixels, and beards cover part of it: enlarge it, draw it last.
    lower = 29 if beard.startswith("MOUSTACHE") else 22
    head.remove(mouth)
    mouth.set(
        "transform",
        f"{head.get('transform')} {mouth.get('transform')} translate(54,{lower}) scale(1.3) translate(-54,-22)",
    )
    by_id["transparent_Avataaar/Default"].append(mouth)
    _paint_directly(root)
    return ElementTree.tostring(root, encoding="unicode")


def _paint_directly(root: ElementTree.Element) -> None:
    """Colours a shape itself where the package lays a masked rectangle over it: no fringe, and twice as fast."""
    for parent in list(root.iter()):
        children = list(parent)
        for shape, paint in itertools.pairwise(children):
            inside = [element.tag.rpartition("}")[2] for element in paint.iter()]
            if shape.tag.endswith("}use") and paint.get("mask") and paint.get("fill") and set(inside) == {"g", "rect"}:
                shape.set("fill", str(paint.get("fill")))
                parent.remove(paint)


def face(index: int, *, held_out: bool = False) -> tuple[NDArray[np.uint8], dict[str, bool]]:
    """Face number `index`: picture [64 64 3] and what is visible on it; held-out faces are a stream of their own."""
    return drawn(Thrown(np.random.default_rng((index, int(held_out), 64))))


def drawn(dice: Dice) -> tuple[NDArray[np.uint8], dict[str, bool]]:
    """The face that dice decide on: picture [64 64 3] and what is visible on it."""
    labels, hair_shows = _labels(dice)
    drawing = _drawing(dice, labels, hair_shows)
    picture = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" width="100" height="100">'
        f'{_background(dice)}<g transform="{_ALIGNED}">{drawing}</g></svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=picture, width=_WORK, height=_WORK, skip_system_fonts=True)
    bgr = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))
    small = cv2.resize(bgr, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[..., ::-1], dtype=np.uint8), labels


def sheet(count: int = 24) -> NDArray[np.uint8]:
    """A contact sheet: two rows of anything, then for each attribute a row with it and a row without."""
    some = [face(index) for index in range(count * 12)]
    rows = [[picture for picture, _ in some[start : start + count]] for start in (0, count)]
    for attribute in ATTRIBUTES:
        for wanted in (True, False):
            rows.append([picture for picture, labels in some if labels[attribute] is wanted][:count])
    return np.vstack([np.hstack(row) for row in rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sheet", type=Path, required=True)
    asked = parser.parse_args()
    cv2.imwrite(str(asked.sheet), cv2.cvtColor(sheet(), cv2.COLOR_RGB2BGR))
