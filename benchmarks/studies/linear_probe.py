"""Has the representation forgotten? A linear probe on the U-Net's middle block, fitted anew on the edited model.

Two questions. Shown: pictures of the concept and of its neighbours, drawn by the unedited model and noised to three
levels, pass through the U-Net under the empty prompt; do its features still tell them apart? Asked: pure noise under
prompts that name the concept or a neighbour; are they still told apart, and how many of the concept's does the probe of
the unedited model still recognise? 50 % is guessing; what the erased word has become may be told from its neighbours as
well, so the last number says more. An erasure that only changes how words are read leaves the first as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.metrics.accuracy import wilson
from benchmarks.studies.common import Round
from benchmarks.suites.suite import Cell, Suite, Target
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Codes, Denoiser
from erase.work import Step, Work

LEVELS = (0.2, 0.5, 0.8)  # of the noise schedule's times
EACH, FOLDS, RIDGE = (
    40,
    5,
    1e-1,
)  # pictures of the concept and of others; of a cross-validation; on standardised features


@dataclass(frozen=True)
class Found:
    """How often a linear probe is right about n held-out pictures (mean over the noise levels) and n prompts.

    `recognised` is the share of the concept's prompts that the unedited model's probe still calls the concept; NaN for
    a network that did not grow out of it, whose features mean other things.
    """

    target: str
    method: str
    shown: float
    asked: float
    recognised: float
    n: int


def find_inside(
    model: Denoiser, suite: Suite, rounds: Sequence[Round], targets: Sequence[Target], each: int = EACH
) -> Work[list[Found]]:
    """The unedited model and every method, on the same pictures, prompts and noise."""
    lines, strangers = [], {round_.label for round_ in rounds if not round_.kin}
    for target in targets:
        cells = cells_beside(suite, target, each)
        shots, is_it = [cell.shot for cell in cells], torch.tensor([target.label in (c.style, c.object) for c in cells])
        z0 = yield from model.latents(shots, steps=suite.steps, guidance=suite.guidance)  # type: ignore[attr-defined]
        edits: dict[str, Edit | None] = {"unedited": None}
        unedited = torch.empty(0)
        for round_ in rounds:
            edits[round_.label] = yield from round_.edit(model, suite, target)
        for name, edit in edits.items():
            with nullcontext() if edit is None else edit.applied(model.network):
                shown = []
                for level in LEVELS:
                    t = int(level * len(model.path))
                    noised = model.path.add_noise(z0, model.noise(shots).cpu(), torch.tensor(t))
                    shown.append(told_apart(middle(model, noised, t, [""] * len(shots)), is_it))
                    yield Step(f"look inside {name}", len(shown), len(LEVELS) + 1)
                last = len(model.path) - 1
                heard = middle(model, model.noise(shots), last, [shot.prompt for shot in shots])
            unedited = heard if edit is None else unedited
            share = math.nan if name in strangers else recognised(unedited, heard, is_it)
            lines.append(
                Found(target.label, name, math.fsum(shown) / len(shown), told_apart(heard, is_it), share, len(shots))
            )
            yield Step(f"look inside {name}", len(LEVELS) + 1, len(LEVELS) + 1)
    return lines


def cells_beside(suite: Suite, target: Target, each: int) -> list[Cell]:
    """`each` cells of the target, as many of its neighbours, the same partners: nothing else tells them apart."""
    own, others = (suite.styles, suite.objects) if target.kind == "style" else (suite.objects, suite.styles)
    partners = [label for label in others if label != suite.photo]
    near = [label for label in suite.neighbours.get(target.label, ()) if label in own] or [
        label for label in own if label not in (target.label, suite.photo)
    ]
    found = []
    for label in ([target.label], near):
        for k in range(each):
            mine, partner = label[k % len(label)], partners[k % len(partners)]
            style, thing = (mine, partner) if target.kind == "style" else (partner, mine)
            found.append(suite.cell(style, thing, k // len(partners)))
    return found


@torch.no_grad()
def middle(model: Denoiser, z: Tensor, t: int, prompts: Sequence[str], batch: int = 32) -> Tensor:
    """The middle block's channels, averaged over the picture [n c], float64 on the CPU."""
    unet = model.network.get_submodule("unet")
    block = getattr(unet, "mid_block", None)
    if not isinstance(block, nn.Module):
        raise BadInput(f"{model.name} has no middle block to look into.")
    parts: list[Tensor] = []
    with _listening(block, parts):
        for start in range(0, len(z), batch):
            piece = z[start : start + batch].to(model.device, model.dtype)
            words = list(prompts[start : start + batch])
            codes: Codes = model.encode(words)
            model.predict(piece, torch.full((len(piece),), t, device=piece.device), codes)
    return torch.cat(parts)


@contextmanager
def _listening(block: nn.Module, parts: list[Tensor]) -> Iterator[None]:
    handle = block.register_forward_hook(lambda *passed: parts.append(passed[2].mean((2, 3)).double().cpu()))
    try:
        yield
    finally:
        handle.remove()


def told_apart(features: Tensor, is_it: Tensor) -> float:
    """The share of held-out rows [n c] that a ridge classifier fitted on the other folds calls right."""
    # Fold by position among one's own kind, so that each fold holds both.
    fold = _folds(is_it)
    called = [
        (_says(features[fold != k], is_it[fold != k], features[fold == k]) == is_it[fold == k]) for k in range(FOLDS)
    ]
    return float(torch.cat(called).double().mean())


def recognised(unedited: Tensor, edited: Tensor, is_it: Tensor) -> float:
    """The share of the concept's edited rows that a probe, fitted on other rows of the unedited model, calls it."""
    fold = _folds(is_it)
    called = [_says(unedited[fold != k], is_it[fold != k], edited[(fold == k) & is_it]) for k in range(FOLDS)]
    return float(torch.cat(called).double().mean())


def _folds(is_it: Tensor) -> Tensor:
    """Each row's fold, by its place among its own kind, so that each fold holds both."""
    return torch.where(is_it, is_it.cumsum(0), (~is_it).cumsum(0)) % FOLDS


def _says(rows: Tensor, is_it: Tensor, others: Tensor) -> Tensor:
    """Which of the others [n c] a ridge classifier calls the concept that was fitted on rows standardised alike."""
    mean, spread = rows.mean(0), rows.std(0).clamp_min(1e-12)
    rows, others, wanted = (rows - mean) / spread, (others - mean) / spread, is_it.double() * 2 - 1
    gram = rows.T @ rows / len(rows) + RIDGE * torch.eye(rows.shape[1], dtype=rows.dtype)
    weight = torch.linalg.solve(gram, rows.T @ (wanted - wanted.mean()) / len(rows))
    return others @ weight + wanted.mean() > 0


def inside_table(lines: Sequence[Found]) -> str:
    """Markdown: a row per target and method."""
    rows = [
        "| erased | method | shown its pictures | asked by name | still recognised | n |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        shares = ((line.shown, line.n), (line.asked, line.n), (line.recognised, line.n // 2))
        told = " | ".join("–" if math.isnan(share) else f"{100 * share:.0f} ({_span(share, n)})" for share, n in shares)
        rows.append(f"| {line.target} | `{line.method}` | {told} | {line.n} |")
    return "\n".join(rows)


def _span(share: float, n: int) -> str:
    low, high = wilson(share, n)
    return f"{100 * low:.0f}–{100 * high:.0f}"
