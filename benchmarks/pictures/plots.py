"""Plots as SVG text: losses over Steps, methods on two axes with their Pareto front, and interference as a heat map."""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from benchmarks.metrics.interference import Matrix
from benchmarks.report import SHARES, Better

SPREAD = "RdBu"
_DRAWING = threading.Lock()  # matplotlib keeps fonts and glyphs in globals
matplotlib.rcParams["svg.hashsalt"] = "concept-erasure-studio"  # the same data make the same bytes


@dataclass(frozen=True)
class Axis:
    """A score as an axis: its name, and which way is better."""

    name: str
    better: Better

    @property
    def title(self) -> str:
        """What stands beside the axis."""
        share = self.name.split()[0] in SHARES or "mean" in self.name
        return f"{self.name}{' (%)' if share else ''}, {'higher' if self.better == 'high' else 'lower'} is better"

    def scaled(self, value: float) -> float:
        """Shares in percent, everything else as it is."""
        return 100 * value if "(%)" in self.title else value


@dataclass(frozen=True)
class Point:
    """One method on two axes, with the two intervals (low, high)."""

    label: str
    x: float
    y: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def front(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    """The points no other point beats on one axis without losing on the other."""

    def worth(point: Point) -> tuple[float, float]:
        return (point.x if x.better == "high" else -point.x, point.y if y.better == "high" else -point.y)

    def beaten(point: Point) -> bool:
        mine = worth(point)
        others = map(worth, points)
        return any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in others)

    return sorted((point for point in points if not beaten(point)), key=lambda point: point.x)


def pareto(points: Sequence[Point], x: Axis, y: Axis) -> str:
    """Every method with its intervals; the undominated ones are joined, the others stay visible in grey."""
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    plot = figure.subplots()
    best = front(points, x, y)
    for point in points:
        colour = "#0b6e4f" if point in best else "#9aa0a6"
        spans = [
            [[axis.scaled(value - low)], [axis.scaled(high - value)]]
            for axis, value, (low, high) in ((x, point.x, point.x_range), (y, point.y, point.y_range))
        ]
        plot.errorbar(
            x.scaled(point.x), y.scaled(point.y), xerr=spans[0], yerr=spans[1], fmt="o", color=colour,
            elinewidth=0.8, capsize=2,
        )  # fmt: skip
        plot.annotate(
            point.label, (x.scaled(point.x), y.scaled(point.y)), (6, 5), textcoords="offset points",
            fontsize=9, parse_math=False,
        )  # fmt: skip
    plot.plot([x.scaled(p.x) for p in best], [y.scaled(p.y) for p in best], "--", color="#0b6e4f", linewidth=1)
    plot.set_xlabel(x.title, parse_math=False)
    plot.set_ylabel(y.title, parse_math=False)
    plot.margins(0.12)  # room for the names beside the outermost points
    plot.grid(alpha=0.25)
    return _svg(figure)


def heat(matrix: Matrix) -> str:
    """The interference matrix: red lost, blue won; the erased concepts' own cells are outlined."""
    erased = list(matrix.cells)
    labels = sorted({label for row in matrix.cells.values() for label in row})
    figure = Figure(figsize=(1.8 + 0.34 * len(labels), max(2.8, 1.6 + 0.34 * len(erased))), layout="constrained")
    plot = figure.subplots()
    values = [[matrix.cells[i][j].change if j in matrix.cells[i] else float("nan") for j in labels] for i in erased]
    image = plot.imshow(values, cmap=SPREAD, vmin=-1, vmax=1, aspect="auto")
    plot.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8, parse_math=False)
    plot.set_yticks(range(len(erased)), erased, fontsize=8, parse_math=False)
    for place, label in enumerate(erased):
        if label in labels:
            corner = (labels.index(label) - 0.5, place - 0.5)
            plot.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black"))
    plot.set_xlabel("accuracy on")
    plot.set_ylabel("after erasing")
    figure.colorbar(image, label="change of accuracy", fraction=0.05)
    return _svg(figure)


def curves(series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str) -> str:
    """Lines by name."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    plot = figure.subplots()
    for name, points in series.items():
        plot.plot([point[0] for point in points], [point[1] for point in points], label=name, linewidth=1)
    plot.set_xlabel(x, parse_math=False)
    plot.set_ylabel(y, parse_math=False)
    plot.grid(alpha=0.25)
    for text in plot.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
    return _svg(figure)


def inline(svg: str) -> str:
    """A plot as an element of an HTML page: with ids of its own, and the page's text colour where it was black.

    Give the element's container a class whose `svg` has `fill: currentColor`, which the text inherits.
    """
    element = svg[svg.index("<svg") :].replace("#000000", "currentColor").replace("#ffffff", "none")
    own = f"plot-{hashlib.sha256(svg.encode()).hexdigest()[:8]}-"
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{own}", element)


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    with _DRAWING:
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
