"""Render the drawings of Pocket Canvas from open icon sets into sprite sheets: rebuilding then needs no icon packages.

python -m generators.pocket.canvas.seeds ICON_FOLDER     # a folder holding @iconify-json/<set>/icons.json
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from generators.assets import FOLDER
from generators.pocket.canvas.words import OBJECTS

SIDE = 112
SHEET = FOLDER / "pocket-seeds"

# Which drawings stand for each object: clear, typical, readable at 64 px.  "set:name"; several sets share most names.
_WIDE = ("noto", "noto-v1", "fluent-emoji-flat", "twemoji", "emojione")
DRAWINGS: dict[str, tuple[str, ...]] = {
    "Architectures": ("house", "castle"),
    "Bears": ("bear", "bear-face", "panda", "panda-face"),
    "Birds": ("duck", "bird"),
    "Butterfly": ("butterfly", "monarch-butterfly"),
    "Cats": ("cat-face", "grinning-cat", "grinning-cat-face"),
    "Dogs": ("dog-face", "dog"),
    "Fishes": ("fish", "tropical-fish"),
    "Flame": ("fire",),
    "Flowers": ("sunflower", "tulip"),
    "Frogs": ("frog", "frog-face"),
    "Horses": ("horse-face", "horse"),
    "Human": ("man", "woman"),
    "Jellyfish": ("jellyfish",),
    "Rabbits": ("rabbit-face", "rabbit"),
    "Sandwiches": ("hamburger", "sandwich"),
    "Sea": ("water-wave",),
    "Statues": ("moai", "statue-of-liberty"),
    "Towers": ("tokyo-tower",),
    "Trees": ("deciduous-tree", "evergreen-tree"),
    "Waterfalls": (),
}
# Objects with few drawings take every set that has one.
_RARE = ("Butterfly", "Flame", "Frogs", "Jellyfish", "Rabbits", "Sandwiches", "Sea", "Statues", "Towers")
_ALL_SETS = (*_WIDE, "fluent-emoji", "streamline-emojis", "fxemoji")


def waterfall(index: int) -> str:
    """An SVG of falling water between cliffs: the one object no icon set draws."""
    rng = np.random.default_rng(1000 + index)
    rock = ("#6b5b4b", "#7a7f86", "#5e6b52", "#8a6a4f")[index % 4]
    dark = ("#4b3f34", "#565b62", "#414b39", "#62492f")[index % 4]
    left, right = 34 + rng.uniform(-6, 4), 78 + rng.uniform(-4, 6)
    top, pool = 16 + rng.uniform(-4, 6), 86 + rng.uniform(-3, 3)
    streaks = "".join(
        f'<path d="M{x:.1f} {top + 2:.1f} Q{x + rng.uniform(-3, 3):.1f} {(top + pool) / 2:.1f}'
        f' {x + rng.uniform(-2, 2):.1f} {pool:.1f}"'
        f' stroke="{("#ffffff", "#bfe6fb", "#3d9fdc")[i % 3]}" stroke-width="{rng.uniform(2.2, 4):.1f}" fill="none"/>'
        for i, x in enumerate(np.linspace(left + 3, right - 3, 8))
    )
    foam = "".join(
        f'<circle cx="{x:.1f}" cy="{pool + rng.uniform(-3, 4):.1f}" r="{rng.uniform(4, 7):.1f}" fill="#ffffff"/>'
        for x in np.linspace(left - 2, right + 2, 8)
    )
    trees = "".join(
        f'<path d="M{x} {top + 3:.1f} l-8 0 l8 -16 l8 16z" fill="#2f7d3b"/>'
        for x in ((12, 100) if index % 2 else (20, 94))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 112 112">'
        f"{trees}"
        f'<path d="M4 {top:.1f} H108 V{pool + 6:.1f} H4z" fill="{rock}"/>'
        f'<path d="M4 {top:.1f} h14 v40 h8 v{pool - top - 40:.1f} H4z'
        f' M108 {top:.1f} h-12 v30 h-8 v{pool - top - 30:.1f} H108z" fill="{dark}"/>'
        f'<path d="M{left:.1f} {top:.1f} H{right:.1f} L{right + 4:.1f} {pool:.1f} H{left - 4:.1f}z"'
        f' fill="#63bdf0"/>{streaks}'
        f'<ellipse cx="56" cy="{pool + 9:.1f}" rx="54" ry="13" fill="#2f86c6"/>{foam}'
        "</svg>"
    )


def _render(svg: str) -> Image.Image:
    import resvg_py

    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=SIDE * 2, height=SIDE * 2))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    box = image.getbbox()
    if box is None:
        raise ValueError("an icon rendered to nothing")
    image = image.crop(box)
    scale = SIDE / max(image.size)
    image = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    return square


def _icons(folder: Path, name: str) -> dict[str, str]:
    data = json.loads((folder / "@iconify-json" / name / "icons.json").read_text())
    width, height = data.get("width", 16), data.get("height", 16)
    return {
        icon: f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{body.get("left", 0)} {body.get("top", 0)}'
        f' {body.get("width", width)} {body.get("height", height)}">{body["body"]}</svg>'
        for icon, body in data["icons"].items()
    }


def build(folder: Path, out: Path = SHEET) -> None:
    """Write one row of sprites per object (`<Object>.png`) and `index.json` naming set and icon of each sprite."""
    sets = {name: _icons(folder, name) for name in _ALL_SETS}
    out.mkdir(parents=True, exist_ok=True)
    index: dict[str, list[str]] = {}
    for thing in OBJECTS:
        names, sprites = [], []
        for icon in DRAWINGS[thing]:
            for source in _ALL_SETS if thing in _RARE else _WIDE:
                if icon in sets[source]:
                    names.append(f"{source}:{icon}")
                    sprites.append(_render(sets[source][icon]))
        if thing == "Waterfalls":
            names = [f"own:waterfall-{i}" for i in range(10)]
            sprites = [_render(waterfall(i)) for i in range(10)]
        row = Image.new("RGBA", (SIDE * len(sprites), SIDE))
        for i, sprite in enumerate(sprites):
            row.paste(sprite, (i * SIDE, 0))
        row.save(out / f"{thing}.png", optimize=True)
        index[thing] = names
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
