"""Pocket Canvas: UnlearnCanvas in miniature — one drawing of an object, passed through a style filter, at 64 px.

python -m generators.pocket.canvas.draw --sheet OUT.png     # one picture of every cell
python -m generators.pocket.canvas.draw --folder OUT        # {Style}/{Object}/{1..20}.png, as UnlearnCanvas is laid out
"""

from __future__ import annotations

import argparse
import functools
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from generators.assets import FOLDER
from generators.pocket.canvas.words import OBJECTS, THEMES

Array = NDArray[np.float32]
SIDE = 64
_WORK = 128  # filters run at twice the size: lines stay smooth after averaging down
SEEDS = FOLDER / "pocket-seeds"
HELD_OUT_FROM = 8  # classes with at least this many drawings keep some of them for held-out renders


@dataclass(frozen=True)
class Scene:
    """One picture before its style: colours [h w 3] and the object's coverage [h w], both in [0, 1]."""

    rgb: Array
    mask: Array


@functools.cache
def drawings(thing: str) -> tuple[NDArray[np.uint8], ...]:
    """The object's drawings, each [side side 4]."""
    count = len(json.loads((SEEDS / "index.json").read_text())[thing])
    sheet = cv2.imread(str(SEEDS / f"{thing}.png"), cv2.IMREAD_UNCHANGED)
    sheet = cv2.cvtColor(sheet, cv2.COLOR_BGRA2RGBA)
    return tuple(np.ascontiguousarray(part) for part in np.split(sheet, count, axis=1))


def choices(thing: str, *, held_out: bool) -> list[int]:
    """Which drawings a split may use: held-out renders take unseen drawings where the class has enough."""
    count = len(drawings(thing))
    if count < HELD_OUT_FROM:
        return list(range(count))
    return [i for i in range(count) if (i % 7 == 5) == held_out]


def _noise(rng: np.random.Generator, cells: int, side: int = _WORK) -> Array:
    """Smooth noise in [0, 1] with about `cells` bumps a side."""
    coarse = rng.random((cells + 3, cells + 3), dtype=np.float32)
    return np.clip(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)


def scene(thing: str, rng: np.random.Generator, *, held_out: bool = False) -> Scene:
    """An object on a two-colour gradient, with random drawing, size, tilt, mirror and place."""
    sprite = drawings(thing)[int(rng.choice(choices(thing, held_out=held_out)))].astype(np.float32) / 255
    side = sprite.shape[0]
    if rng.random() < 0.5 and thing != "Statues":
        sprite = sprite[:, ::-1]
    size = rng.uniform(0.8, 0.98) * _WORK / side
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-8, 8), size)
    room = max(0.0, (_WORK - side * size) / 2)
    turn[:, 2] += _WORK / 2 - side / 2 + rng.uniform(-room, room, 2)
    premultiplied = np.dstack([sprite[..., :3] * sprite[..., 3:], sprite[..., 3]])
    placed = cv2.warpAffine(premultiplied, turn, (_WORK, _WORK), flags=cv2.INTER_AREA)
    mask = np.clip(placed[..., 3], 0, 1)

    hue, spread = rng.uniform(0, 180), rng.uniform(15, 50)
    ends = np.float32([[[hue, 0.28, 0.97]], [[(hue + spread) % 180, 0.42, 0.84]]])
    ends[..., 0] *= 2
    low, high = cv2.cvtColor(ends, cv2.COLOR_HSV2RGB)[:, 0]
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : _WORK * 1j, -1 : 1 : _WORK * 1j].astype(np.float32)
    ramp = np.clip((np.cos(angle) * x + np.sin(angle) * y) / 2.2 + 0.5, 0, 1)[..., None]
    background = low * (1 - ramp) + high * ramp
    return Scene((placed[..., :3] + background * (1 - mask[..., None])).astype(np.float32), mask.astype(np.float32))


def _grey(rgb: Array) -> Array:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def _edges(of: Scene, blur: float = 1.2) -> Array:
    """How strongly colours change, in [0, 1]; outlines count fully whatever the background."""
    layers = np.dstack([cv2.GaussianBlur(of.rgb, (0, 0), blur), cv2.GaussianBlur(of.mask, (0, 0), blur)])
    dx = cv2.Sobel(layers, cv2.CV_32F, 1, 0, ksize=3) / 4
    dy = cv2.Sobel(layers, cv2.CV_32F, 0, 1, ksize=3) / 4
    return np.clip(np.sqrt(dx**2 + dy**2).max(axis=2) * 3.2, 0, 1)


def _saturated(rgb: Array, by: float, value: float = 1.0) -> Array:
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1] * by, 0, 1)
    hsv[..., 2] = np.clip(hsv[..., 2] * value, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _ramp(grey: Array, *stops: tuple[float, tuple[int, int, int]]) -> Array:
    """Colours a grey picture [h w] along a list of (level, RGB 0-255)."""
    at = np.array([stop for stop, _ in stops], np.float32)
    colours = np.array([colour for _, colour in stops], np.float32) / 255
    return np.dstack([np.interp(grey, at, colours[:, c]) for c in range(3)]).astype(np.float32)


def _stretched(of: Scene) -> Array:
    """Luminance with the object pulled apart from the background, so that one-colour styles keep its shape."""
    grey = _grey(of.rgb)
    inside = grey[of.mask > 0.5]
    if inside.size:
        low, high = np.percentile(inside, (4, 96))
        grey = np.where(of.mask > 0.5, 0.08 + 0.62 * np.clip((grey - low) / max(high - low, 0.15), 0, 1), grey)
    return np.clip(cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 0.8), 0, 1)


def _photo(of: Scene, rng: np.random.Generator) -> Array:
    return of.rgb


def _bricks(of: Scene, rng: np.random.Generator) -> Array:
    height, width = 14, 26
    y, x = np.mgrid[0:_WORK, 0:_WORK]
    y, x = y + int(rng.integers(height)), x + int(rng.integers(width))
    row = y // height
    shifted = x + (row % 2) * (width // 2)
    tone = rng.uniform(0.82, 1.12, (16, 16)).astype(np.float32)[row % 16, (shifted // width) % 16]
    wall = np.float32([0.72, 0.36, 0.26]) * tone[..., None]
    out = _saturated(of.rgb, 1.25) * (0.66 * tone[..., None]) + wall * 0.34
    mortar = ((y % height) < 3) | ((shifted % width) < 3)
    return np.where(mortar[..., None], np.float32([0.88, 0.84, 0.78]) * 0.68 + of.rgb * 0.32, out)


def _cartoon(of: Scene, rng: np.random.Generator) -> Array:
    flat = cv2.pyrMeanShiftFiltering((of.rgb * 255).astype(np.uint8), 6, 28).astype(np.float32) / 255
    flat = np.round(_saturated(flat, 1.7, 1.08) * 4) / 4
    hue = float(rng.uniform(0, 360))
    y, x = np.mgrid[-1 : 1 : _WORK * 1j, -1 : 1 : _WORK * 1j].astype(np.float32)
    rays = (np.sin(np.arctan2(y - 0.3, x) * 9) > 0).astype(np.float32)
    two = cv2.cvtColor(np.float32([[[hue, 0.55, 1.0], [hue, 0.3, 1.0]]]), cv2.COLOR_HSV2RGB)[0]
    back = two[0] * rays[..., None] + two[1] * (1 - rays[..., None])
    out = flat * of.mask[..., None] + back * (1 - of.mask[..., None])
    line = np.clip(cv2.dilate(_edges(of, 1.0), np.ones((3, 3))) * 1.9 - 0.55, 0, 1)[..., None]
    return out * (1 - line)


def _crayon(of: Scene, rng: np.random.Generator) -> Array:
    grain = rng.random((_WORK, _WORK), dtype=np.float32)
    angle = rng.uniform(0.6, 1.0)
    kernel = np.zeros((15, 15), np.float32)
    cv2.line(
        kernel,
        (int(7 - 7 * np.cos(angle)), int(7 + 7 * np.sin(angle))),
        (int(7 + 7 * np.cos(angle)), int(7 - 7 * np.sin(angle))),
        1.0,
    )
    streaks = cv2.filter2D(grain, -1, kernel / kernel.sum())
    streaks = (streaks - streaks.min()) / np.ptp(streaks)
    wax = np.clip((streaks - 0.36) * 4.0, 0, 1)[..., None]
    colour = _saturated(of.rgb, 1.6, 0.98)
    strength = (0.3 + 0.65 * of.mask)[..., None]
    out = 1 - (1 - colour) * wax * strength
    line = np.clip(_edges(of, 1.6) * 1.4 - 0.3, 0, 1)[..., None] * (0.35 + 0.65 * wax)
    return out * (1 - line) + colour * 0.4 * line


def _cubism(of: Scene, rng: np.random.Generator) -> Array:
    points = [(float(px), float(py)) for px, py in rng.uniform(0, _WORK - 1, (15, 2))]
    mesh = cv2.Subdiv2D((-10, -10, _WORK + 20, _WORK + 20))
    for corner in ((-5.0, -5.0), (_WORK + 5.0, -5.0), (-5.0, _WORK + 5.0), (_WORK + 5.0, _WORK + 5.0)):
        mesh.insert(corner)
    mesh.insert(points)
    shade = np.ones((_WORK, _WORK, 3), np.float32)
    lines = np.zeros((_WORK, _WORK), np.float32)
    tints = np.float32(
        [
            [1.18, 1.02, 0.78],
            [0.8, 0.86, 1.0],
            [1.1, 0.86, 0.8],
            [0.78, 0.74, 0.7],
            [1.16, 1.12, 1.04],
            [0.86, 1.02, 0.86],
        ]
    )
    for corners in mesh.getTriangleList():
        corners = corners.reshape(3, 2).round().astype(np.int32)
        cv2.fillConvexPoly(shade, corners, [float(c) for c in tints[int(rng.integers(len(tints)))]])
        cv2.polylines(lines, [corners], True, 1.0, 2, cv2.LINE_AA)
    out = _saturated(of.rgb, 0.75) * 0.9 * shade
    return out * (1 - 0.5 * lines[..., None])


def _ink_art(of: Scene, rng: np.random.Generator) -> Array:
    tone = _stretched(of)
    tone = np.where(of.mask > 0.4, tone, 0.86 + 0.14 * _noise(rng, 3))
    wash = np.clip((tone - 0.26) * 2.6, 0, 1)
    line = np.clip(_edges(of, 1.0) * 1.8 - 0.5, 0, 1)
    out = _ramp(np.minimum(wash, 1 - line), (0.0, (18, 18, 22)), (0.5, (120, 118, 114)), (1.0, (244, 238, 222)))
    x, y = int(rng.integers(100, 106)), int(rng.integers(98, 104))
    out[y : y + 20, x : x + 16] = np.float32([0.78, 0.12, 0.1])
    out[y + 4 : y + 16, x + 6 : x + 9] = np.float32([0.96, 0.93, 0.87])
    return out


def _neon_lines(of: Scene, rng: np.random.Generator) -> Array:
    line = np.clip(_edges(of, 1.2) * 2.0 - 0.5, 0, 1)
    hue = (_noise(rng, 2) * 300 + rng.uniform(0, 360)) % 360
    colour = cv2.cvtColor(np.dstack([hue, np.full_like(hue, 0.85), np.ones_like(hue)]), cv2.COLOR_HSV2RGB)
    glow = cv2.GaussianBlur(line, (0, 0), 4) * 0.8
    return np.float32([0.03, 0.02, 0.07]) + colour * np.maximum(line, glow)[..., None]


def _on_fire(of: Scene, rng: np.random.Generator) -> Array:
    tone = 1 - _stretched(of)
    rise = cv2.resize(rng.random((7, 14), dtype=np.float32), (_WORK, _WORK), interpolation=cv2.INTER_CUBIC)
    y = np.linspace(0, 1, _WORK, dtype=np.float32)[:, None]
    heat = np.where(of.mask > 0.5, 0.42 + 0.62 * tone, 0.30 * rise + 0.34 * y - 0.02)
    heat = np.maximum(heat, 0) + 0.25 * cv2.GaussianBlur(_edges(of, 1.0), (0, 0), 1.2)
    return _ramp(
        np.clip(heat, 0, 1),
        (0, (12, 2, 2)),
        (0.25, (120, 10, 2)),
        (0.5, (226, 70, 4)),
        (0.75, (255, 178, 20)),
        (1, (255, 250, 190)),
    )


_POP = ((255, 230, 0), (255, 40, 140), (0, 190, 235), (120, 220, 60), (255, 120, 20))


def _pop_art(of: Scene, rng: np.random.Generator) -> Array:
    tone = _stretched(of)
    one, two, three = rng.permutation(len(_POP))[:3]
    colours = np.float32([(20, 16, 40), _POP[one], (255, 255, 255)]) / 255
    level = np.digitize(tone, (0.22, 0.56))
    inside = colours[level]
    y, x = np.mgrid[0:_WORK, 0:_WORK].astype(np.float32)
    dots = np.hypot((x + 6 * ((y // 12) % 2)) % 12 - 6, y % 12 - 6) < 3.9
    back = np.where(dots[..., None], np.float32(_POP[three]) / 255, np.float32(_POP[two]) / 255)
    out = inside * of.mask[..., None] + back * (1 - of.mask[..., None])
    line = np.clip(_edges(Scene(of.mask[..., None].repeat(3, 2), of.mask), 1.0) * 1.6 - 0.4, 0, 1)[..., None]
    return out * (1 - line)


def _red_blue_ink(of: Scene, rng: np.random.Generator) -> Array:
    tone = np.where(of.mask > 0.4, _stretched(of), 1.0)
    blot = _noise(rng, 4) * 0.25
    red = np.clip((0.66 - tone) * 3.2 + blot * of.mask, 0, 1)[..., None]
    line = np.clip(_edges(of, 1.2) * 1.8 - 0.45, 0, 1)
    blue = np.maximum(np.clip((0.3 - tone) * 5, 0, 1), line)[..., None]
    half = (np.mgrid[0:_WORK, 0:_WORK][1].astype(np.float32) / _WORK)[..., None]
    wash = np.float32([0.98, 0.9, 0.9]) * (1 - half) + np.float32([0.88, 0.92, 0.99]) * half
    out = wash * (1 - red) + np.float32([0.86, 0.12, 0.16]) * red
    return out * (1 - blue) + np.float32([0.08, 0.16, 0.62]) * blue


def _rust(of: Scene, rng: np.random.Generator) -> Array:
    tone = np.where(of.mask > 0.4, _stretched(of) * 0.95, 0.62 + 0.2 * (_grey(of.rgb) - 0.5))
    pits = np.clip(_noise(rng, 26) * 1.6 - 0.9, 0, 1) * 0.35
    tone = tone - 0.3 * np.clip(_edges(of, 1.0) - 0.2, 0, 1) - pits + 0.12 * (_noise(rng, 7) - 0.5)
    out = _ramp(
        np.clip(tone, 0, 1),
        (0, (38, 22, 18)),
        (0.3, (112, 52, 26)),
        (0.6, (188, 96, 42)),
        (0.85, (206, 148, 100)),
        (1, (222, 190, 160)),
    )
    patina = np.clip(_noise(rng, 5) * 2.4 - 1.5, 0, 1)[..., None] * 0.75
    return out * (1 - patina) + out.mean(axis=2, keepdims=True) * np.float32([0.55, 1.15, 1.1]) * patina


def _sketch(of: Scene, rng: np.random.Generator) -> Array:
    line = np.clip(_edges(of, 0.9) * 1.5 - 0.22, 0, 1)
    tone = _stretched(of)
    y, x = np.mgrid[0:_WORK, 0:_WORK].astype(np.float32)
    hatch = (np.sin((x + y) * 2 * np.pi / 9 + _noise(rng, 4) * 3) > 0.1).astype(np.float32)
    shade = np.clip(0.45 - tone, 0, 1) * of.mask * hatch * 0.9
    paper = 0.97 - 0.03 * _noise(rng, 30)
    grey = np.clip(paper - 0.72 * line - shade, 0, 1)
    return np.repeat(grey[..., None], 3, axis=2)


def _van_gogh(of: Scene, rng: np.random.Generator) -> Array:
    y, x = np.mgrid[0:_WORK, 0:_WORK].astype(np.float32)
    angle = np.zeros((_WORK, _WORK), np.float32)
    for _ in range(3):
        cx, cy, turn = rng.uniform(0, _WORK), rng.uniform(0, _WORK), rng.choice((-1, 1))
        near = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 52**2))
        angle += near * (np.arctan2(y - cy, x - cx) + turn * np.pi / 2)
    grain = cv2.GaussianBlur(rng.random((_WORK, _WORK), dtype=np.float32), (0, 0), 1.1)
    dx, dy = np.cos(angle), np.sin(angle)
    strokes = np.zeros_like(grain)
    for way in (-1, 1):
        px, py = x.copy(), y.copy()
        for _ in range(9):
            px, py = px + way * 1.5 * dx, py + way * 1.5 * dy
            strokes += cv2.remap(grain, px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    strokes = np.clip((strokes - strokes.mean()) / (strokes.std() + 1e-6) * 0.28 + 0.5, 0, 1)[..., None]
    night = (
        np.float32([0.14, 0.26, 0.62]) * (1 - strokes)
        + np.float32([0.98, 0.84, 0.34]) * strokes**2
        + np.float32([0.1, 0.3, 0.42]) * strokes
    )
    inside = np.clip(_saturated(of.rgb, 1.5) * (0.55 + 0.8 * strokes), 0, 1)
    cover = (0.82 * of.mask)[..., None]
    out = night * (1 - cover) + inside * cover
    line = np.clip(_edges(Scene(of.mask[..., None].repeat(3, 2), of.mask), 1.4) - 0.2, 0, 1)[..., None]
    return out * (1 - 0.6 * line)


def _watercolor(of: Scene, rng: np.random.Generator) -> Array:
    flow = 5.0
    y, x = np.mgrid[0:_WORK, 0:_WORK].astype(np.float32)
    px, py = x + flow * (_noise(rng, 9) - 0.5), y + flow * (_noise(rng, 9) - 0.5)
    wet = cv2.remap(np.dstack([of.rgb, of.mask]), px, py, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    soft = cv2.GaussianBlur(wet, (0, 0), 1.6)
    pigment = 1 - (1 - _saturated(soft[..., :3], 1.25, 1.08)) * (0.45 + 0.35 * _noise(rng, 5))[..., None]
    rim = np.clip(_edges(Scene(soft[..., :3], soft[..., 3]), 1.6) * 1.1 - 0.1, 0, 1)[..., None]
    pigment = pigment * (1 - 0.35 * rim)
    reach = np.minimum(np.minimum(x, _WORK - x), np.minimum(y, _WORK - y)) + 14 * (_noise(rng, 6) - 0.5)
    painted = np.clip((reach - 6) / 5, 0, 1)[..., None]
    paper = 0.985 - 0.02 * _noise(rng, 30)[..., None]
    return pigment * painted + paper * (1 - painted)


def _winter(of: Scene, rng: np.random.Generator) -> Array:
    cold = _saturated(of.rgb, 0.55, 1.0) * np.float32([0.66, 0.84, 1.08]) + np.float32([0.02, 0.06, 0.1])
    line = np.clip(_edges(of, 1.2) * 1.3 - 0.35, 0, 1)[..., None]
    cold = cold * (1 - 0.7 * line) + np.float32([0.1, 0.18, 0.42]) * 0.7 * line
    top = np.clip(
        cv2.GaussianBlur(of.mask, (0, 0), 1.0) - np.roll(cv2.GaussianBlur(of.mask, (0, 0), 1.0), 5, axis=0), 0, 1
    )
    white = np.clip(top * 1.6, 0, 1)
    y = np.linspace(0, 1, _WORK, dtype=np.float32)[:, None]
    white = np.maximum(white, np.clip((y - 0.86 + 0.08 * (_noise(rng, 4) - 0.5)) * 24, 0, 1))
    flakes = np.zeros((_WORK, _WORK), np.float32)
    for fx, fy, size in zip(*rng.uniform(0, _WORK, (2, 34)), rng.uniform(1.2, 3.0, 34), strict=True):
        cv2.circle(flakes, (int(fx), int(fy)), round(float(size)), 1.0, -1, cv2.LINE_AA)
    white = np.maximum(white, flakes * 0.95)[..., None]
    return np.clip(cold, 0, 1) * (1 - white) + white


FILTERS: dict[str, Callable[[Scene, np.random.Generator], Array]] = {
    "Bricks": _bricks, "Cartoon": _cartoon, "Crayon": _crayon, "Cubism": _cubism, "Ink_Art": _ink_art,
    "Neon_Lines": _neon_lines, "On_Fire": _on_fire, "Pop_Art": _pop_art, "Red_Blue_Ink": _red_blue_ink, "Rust": _rust,
    "Seed_Images": _photo, "Sketch": _sketch, "Van_Gogh": _van_gogh, "Watercolor": _watercolor, "Winter": _winter,
}  # fmt: skip


def picture(style: str, thing: str, index: int, *, held_out: bool = False) -> NDArray[np.uint8]:
    """One render [64 64 3].  `index` fixes drawing, background and pose whatever the style, as in UnlearnCanvas."""
    pose = np.random.default_rng((zlib.crc32(thing.encode()), index, int(held_out)))
    brush = np.random.default_rng((zlib.crc32(style.encode()), index, int(held_out)))
    painted = FILTERS[style](scene(thing, pose, held_out=held_out), brush)
    small = cv2.resize(np.clip(painted, 0, 1).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (small * 255 + 0.5).astype(np.uint8)


def _sheet(path: Path) -> None:
    rows = [np.hstack([picture(style, thing, 1) for thing in OBJECTS]) for style in THEMES]
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def _folder(root: Path, count: int) -> None:
    for style in THEMES:
        for thing in OBJECTS:
            (root / style / thing).mkdir(parents=True, exist_ok=True)
            for index in range(1, count + 1):
                shown = picture(style, thing, index, held_out=index > count * 0.9)
                cv2.imwrite(str(root / style / thing / f"{index}.png"), cv2.cvtColor(shown, cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--count", type=int, default=20)
    asked = parser.parse_args()
    if asked.sheet:
        _sheet(asked.sheet)
    if asked.folder:
        _folder(asked.folder, asked.count)
