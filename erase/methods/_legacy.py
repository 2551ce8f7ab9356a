"""Modules under the names they had in version 0.1, for method files written against it; they go with version 0.3."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from erase.concept import Concept
from erase.provenance import check_request, provenance
from erase.request import Request

MOVED = {
    "erase.adversary": ("erase.training.prompt_adversary",),
    "erase.everyday": ("erase.prompts.everyday",),
    "erase.feedback": ("erase.gan.feedback",),
    "erase.fold": ("erase.closed_form.fold",),
    "erase.loan": ("erase.borrow", "erase.rng"),
    "erase.rows": ("erase.closed_form.gather",),
    "erase.sentences": ("erase.prompts.templates",),
    "erase.slices": ("erase.training.slices",),
    "erase.subspace": ("erase.closed_form.subspace",),
    "erase.surgery": ("erase.training.surgery",),
    "erase.tune": ("erase.training.deltas",),
}


def _provenance(
    method: BaseModel, model: Any, concepts: Sequence[Concept], keep: Sequence[Concept], seed: int
) -> dict[str, Any]:
    return provenance(method, Request(model, concepts, keep, seed))


class _Moved(MetaPathFinder, Loader):
    """Answers an import of an old name with the names of the modules that took its place."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED or fullname == "erase.about" else None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "erase.about":
            vars(module).update(agreed=check_request, provenance=_provenance)
            new: tuple[str, ...] = ("erase.request",)
        else:
            new = MOVED[module.__name__]
            for name in new:
                vars(module).update({k: v for k, v in vars(import_module(name)).items() if not k.startswith("__")})
        warnings.warn(f"{module.__name__} moved to {' and '.join(new)}.", DeprecationWarning, stacklevel=2)


def serve_old_names() -> None:
    """From here on the old names can be imported too."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
