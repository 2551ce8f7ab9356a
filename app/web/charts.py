"""Two small charts as SVG: curves over steps, and runs as points between two scores. Colours follow the page's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 260, 56, 16, 16, 40
COLOURS = ("#0f766e", "#b45309", "#6d28d9", "#be123c", "#1d4ed8", "#4d7c0f")


@dataclass(frozen=True)
class Point:
    """A run between two scores, each with its interval; `label` is printed beside it."""

    label: str
    name: str
    x: tuple[float, float, float]  # low, value, high
    y: tuple[float, float, float]
    best: bool = False


def curves(series: Mapping[str, Sequence[tuple[float, float]]], x_name: str, title: str) -> str:
    """Lines over a common axis, each named in the legend with its last value."""
    points = [point for line in series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return ""
    x, y = _scale([p[0] for p in points], LEFT, WIDTH - RIGHT), _scale([p[1] for p in points], HEIGHT - BOTTOM, TOP)
    parts = [_axes(x, y, x_name, "")]
    legend = []
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line if math.isfinite(b))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        last = f" {line[-1][1]:.4g}" if line else ""
        legend.append(f'<span><i style="background:{colour}"></i>{escape(name)}{last}</span>')
    return _svg("".join(parts), title) + f'<p class="legend">{"".join(legend)}</p>'


def scatter(points: Sequence[Point], x_name: str, y_name: str, title: str) -> str:
    """Runs as points with their intervals, both axes ending at 1; those no other run beats in both are filled."""
    x = _Scale(_quarter(point.x[0] for point in points), 1.0, LEFT, WIDTH - 2 * RIGHT)
    y = _Scale(_quarter(point.y[0] for point in points), 1.0, HEIGHT - BOTTOM, 2 * TOP)
    parts = [_axes(x, y, x_name, y_name)]
    front = sorted((p.x[1], p.y[1]) for p in points if p.best)
    if len(front) > 1:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in front)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[0]}" stroke-dasharray="4 4"/>')
    for number, point in enumerate(points):
        (x0, xv, x1), (y0, yv, y1) = point.x, point.y
        side, anchor = ((1, "start"), (-1, "end"))[number % 2]  # so that near points keep their labels apart
        colour = COLOURS[0] if point.best else "currentColor"
        fill = colour if point.best else "var(--background-fill-primary, #fff)"
        parts.append(
            f'<g stroke="{colour}"><title>{escape(point.name)}</title>'
            f'<line x1="{x(x0):.1f}" x2="{x(x1):.1f}" y1="{y(yv):.1f}" y2="{y(yv):.1f}" opacity=".4"/>'
            f'<line y1="{y(y0):.1f}" y2="{y(y1):.1f}" x1="{x(xv):.1f}" x2="{x(xv):.1f}" opacity=".4"/>'
            f'<circle cx="{x(xv):.1f}" cy="{y(yv):.1f}" r="6" fill="{fill}" stroke-width="2"/></g>'
            f'<text x="{x(xv) + side * 10:.1f}" y="{y(yv) - 8:.1f}" font-weight="600" text-anchor="{anchor}">'
            f"{escape(point.label)}</text>"
        )
    return _svg("".join(parts), title)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _scale(values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    return _Scale(low, high if high > low else low + (abs(low) or 1.0), start, end)


def _quarter(values: Iterable[float]) -> float:
    """The quarter of the unit interval in which the smallest of some shares lies, never the last one."""
    return min(math.floor(4 * min(values)) / 4, 0.75)


def _axes(x: _Scale, y: _Scale, x_name: str, y_name: str) -> str:
    parts = []
    for part in range(5):
        a, b = x.low + (x.high - x.low) * part / 4, y.low + (y.high - y.low) * part / 4
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(b):.1f}" y2="{y(b):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(b) + 4:.1f}" text-anchor="end">{b:.3g}</text>')
        parts.append(f'<text x="{x(a):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{a:.3g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x_name)}</text>')
    parts.append(f'<text x="{LEFT - 8}" y="{TOP - 2}">{escape(y_name)}</text>')
    return "".join(parts)


def _svg(inside: str, title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{inside}</svg>"
    )
