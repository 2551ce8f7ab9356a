"""What every tuned method does around its own training: checks, the job's mark, borrowing, and the record of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from erase.borrow import borrowed
from erase.concept import Concept
from erase.edit import Edit
from erase.model import BadInput, Generator, require
from erase.provenance import agreed, job_mark, name_of, provenance
from erase.work import Work, with_state


def trained(
    method: Any,
    model: Generator,
    concepts: Sequence[Concept],
    keep: Sequence[Concept],
    seed: int,
    state: Mapping[str, Tensor] | None,
    train: Callable[[Mapping[str, Tensor]], Work[dict[str, Tensor]]],
) -> Work[Edit]:
    """The edit whose deltas `train` returns, given the tensors of an interrupted run or none.

    `method` is the frozen model of its knobs, and tells the `cost` of a whole run. Meanwhile the network is in
    evaluation mode and its parameters ask for no gradients. Raises BadInput for a request that contradicts itself, a
    model of another family, and a state of another job.
    """
    require(model, method.needs, name_of(method))
    agreed(concepts, keep)
    about = provenance(method, model, concepts, keep, seed)
    mark = job_mark(about)
    if state is not None and not torch.equal(state.get("job", mark[:0]), mark):
        raise BadInput("The saved state belongs to another job: other knobs, concepts, seed, model or versions.")
    with borrowed(model.network, train=False):
        deltas = yield from with_state(train(state or {}), {"job": mark})
    return Edit(deltas, {**about, "cost": method.cost(concepts, keep)})


def forwards(taught: float, tuned: float, steps: int, samples: int) -> dict[str, float]:
    """U-Net sample-forwards of a run: a prediction for one latent counts one, a guided call two.

    `taught` before the first optimiser step, `tuned` in all `steps`, in which gradients are taken of `samples` lessons.
    """
    return {
        "teach_forwards": taught,
        "tune_forwards": tuned,
        "gradient_steps": steps,
        "gradient_samples": samples,
        "forwards_per_step": (taught + tuned) / steps,
        "forwards_per_sample": (taught + tuned) / samples,
    }
