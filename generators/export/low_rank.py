"""What low-rank formats share: which weight changes fit into them, and the factors of those at a stated error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from erase.edit import Edit
from erase.errors import BadInput
from erase.low_rank import Factors, factored
from erase.work import Step, Work
from generators.export.format import Asked, Facts, Form

HALF = 0.5  # nobody is told to leave out more than this share of an edit
NAMING = 800  # bytes a layer's names take in a file, at most
ERROR = 0.01  # relative Frobenius error of the whole change, where nothing else is asked for


@dataclass(frozen=True)
class Thin:
    """Factors by parameter name, the tensors kept as they are, and what both miss of the edit."""

    factors: Mapping[str, Factors]
    whole: Mapping[str, Tensor]
    facts: Facts


def rides(name: str, delta: Tensor) -> bool:
    """Whether a LoRA can hold a parameter's change: weights of linear and convolution layers."""
    return name.endswith(".weight") and delta.ndim in (2, 4) and ".embeddings." not in name and "projection" not in name


def refusal(edit: Edit, asked: Asked) -> str | None:
    """Why an edit does not fit into a LoRA: what cannot ride is more than the error allows."""
    if not any(rides(name, delta) and delta.any() for name, delta in edit.deltas.items()):
        return "A LoRA holds changes of linear and convolution layers, and this edit has none; use edit."
    left, allowed = _left_out(edit), ERROR if asked.error is None else asked.error
    share = _norm(left) / _norm(edit.deltas)
    if share < allowed:
        return None
    others = f"edit, pipeline, single-file{_plugin(edit)}"
    without = f", or leave them out with --error {math.ceil(share * 100 + 1) / 100:g}" if share < HALF else ""
    return (
        f"A LoRA holds no biases, norms or embeddings, and this edit changes {len(left)} of them, such as "
        f"{min(left)}: {share:.2%} of it. Use {others}{without}."
    )


def factors(edit: Edit, asked: Asked, *, leave_out: bool) -> Work[Thin]:
    """Factors of every change that fits, one Step each. `leave_out` drops what does not fit, and its share counts as
    error; otherwise it is kept whole, and so is what its factors would not make smaller."""
    error = ERROR if asked.error is None else asked.error
    changed = {name: delta for name, delta in edit.deltas.items() if bool(delta.any())}
    left = _left_out(edit)
    total = _norm(changed)
    share = _norm(left) / total if leave_out and total else 0.0
    rank = asked.rank if asked.size is None else _rank_within(asked.size, edit, asked, leave_out=leave_out)
    found: dict[str, Factors] = {}
    whole: dict[str, Tensor] = {} if leave_out else {name: _cast(delta, asked) for name, delta in left.items()}
    riding = [name for name in changed if name not in left]
    for done, name in enumerate(riding, 1):
        each = factored(changed[name], error=math.sqrt(error**2 - share**2), rank=rank, dtype=asked.dtype)
        dense = _cast(changed[name], asked)
        if not leave_out and each.bytes >= dense.nbytes:
            whole[name] = dense
        else:
            found[name] = each
        yield Step("factor", done, len(riding))
    rounded = _norm({name: changed[name].cpu().double() - tensor for name, tensor in whole.items()})
    missing = math.hypot(rounded, share * total, *(each.residual for each in found.values()))
    ranks = [each.rank for each in found.values()]
    facts: dict[str, Any] = {
        "error": missing / total if total else 0.0,
        "spectral_error": max((each.spectral for each in found.values()), default=0.0),
        "ranks": [min(ranks, default=0), max(ranks, default=0)],
        "left_out": share,
    }
    return Thin(found, whole, facts)


def _rank_within(size: float, edit: Edit, asked: Asked, *, leave_out: bool) -> int:
    """The largest rank at which all factors, and what is kept whole, weigh at most `size` megabytes."""
    left, each = _left_out(edit), 0
    kept = NAMING * (len(edit.deltas) + 5) + len(json.dumps(dict(edit.about)))
    for name, delta in edit.deltas.items():
        width = (asked.dtype or delta.dtype).itemsize
        if name in left:
            kept += 0 if leave_out else delta.numel() * width
        elif delta.any():
            each += (len(delta) + delta[0].numel()) * width
    rank = int((size * 1e6 - kept) // each)
    if rank < 1:
        least = (kept + each) / 1e6
        raise BadInput(f"{size:g} MB are too few for this edit: of rank 1 it takes {least:.2g} MB. Give more.")
    return rank


def _left_out(edit: Edit) -> dict[str, Tensor]:
    return {name: delta for name, delta in edit.deltas.items() if delta.any() and not rides(name, delta)}


def _norm(deltas: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(delta.double().square().sum()) for delta in deltas.values()))


def _cast(delta: Tensor, asked: Asked) -> Tensor:
    return delta.to("cpu", asked.dtype or delta.dtype)


def _plugin(edit: Edit) -> str:
    return ", plugin" if all(name.startswith("text") for name in edit.deltas) else ""


# What all LoRA files have in common.
lora = partial(
    Form,
    adds=True,
    options=("error", "rank", "size"),
    approximates=lambda asked: True,
    refusal=refusal,
)
