"""What is asked of a method, and the one way in which every method is run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from erase.borrow import borrowed
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import require
from erase.prompts.templates import require_room
from erase.provenance import check_request, job_mark, name_of, provenance
from erase.work import Work, with_state


@dataclass(frozen=True)
class Request:
    """One erasure: the model, the concepts to erase, the concepts to keep, and the seed of every random draw.

    Raises BadInput for a request that contradicts itself: nothing to erase, erased twice, erased and kept.
    """

    model: Any
    concepts: Sequence[Concept]
    keep: Sequence[Concept] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_request(self.concepts, self.keep)


def run_method(method: Any, request: Request, state: Mapping[str, Tensor] | None = None) -> Work[Edit]:
    """The edit that a method makes of a request; the network is left as it was, wherever the work is closed.

    A method that trains offers `learn` and `cost`: its network is in evaluation mode, its Steps carry the state from
    which `state` continues to the same bits. A closed form offers `solve`. Raises BadInput for a model of another
    family and for the state of another job.
    """
    if not hasattr(method, "solve") and not hasattr(method, "learn"):
        return (yield from _erased_by_itself(method, request, state))
    require(request.model, method.needs, name_of(method))
    if hasattr(request.model, "frame"):
        for concept in (*request.concepts, *request.keep):
            require_room(request.model, concept, getattr(method, "templates", False))
    if hasattr(method, "solve"):
        solved = yield from method.solve(request)
        return _finite(Edit(solved.deltas, {**provenance(method, request), **solved.about}))
    about = provenance(method, request)
    mark = job_mark(about)
    if state is not None and not torch.equal(state.get("job", mark[:0]), mark):
        raise BadInput("The saved state belongs to another job: other knobs, concepts, seed, model or versions.")
    with borrowed(request.model.network, train=False):
        deltas = yield from with_state(method.learn(request, state or {}), {"job": mark})
    edit = _finite(Edit(deltas, {**about, "cost": method.cost(request)}))
    return (yield from method.finish(request, edit)) if hasattr(method, "finish") else edit


def _finite(edit: Edit) -> Edit:
    """The same edit; BadInput when a weight in it is not a number."""
    if (name := edit.unfinite) is not None:
        raise BadInput(
            f"The edit of {name} is not finite, so nothing is kept of it: the training has diverged. Lower the "
            "learning rate, or let the model compute in fp32."
        )
    return edit


def _erased_by_itself(method: Any, request: Request, state: Mapping[str, Tensor] | None) -> Work[Edit]:
    """The edit of a plug-in written before version 0.2, which checks its model and its state itself."""
    warnings.warn(
        f"{name_of(method)} defines erase(model, concepts, keep, seed, state); from version 0.3 a method defines "
        "learn(request, state) and cost(request), or solve(request).",
        DeprecationWarning,
        stacklevel=2,
    )
    return (yield from method.erase(request.model, request.concepts, request.keep, seed=request.seed, state=state))
