"""How an attack is carried out, whichever attack and model it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.probes.base import Probe
from benchmarks.suites.gan_suite import GanSuite
from benchmarks.suites.prompts import Row
from benchmarks.suites.suite import Suite

FEW = 20  # rows by default; fewer than these are marked


@dataclass(frozen=True)
class AttackSettings:
    """What is attacked, and who reads the pictures.

    `rows` default to `count` sentences of the suite; `batch` of them are attacked side by side. `probe` defaults to the
    suite's, `confirm` to another bundled one with the same labels. Without `utility` a model that has not been judged
    is not judged either. `job` is recorded as it is.
    """

    suite: Suite | str = "pocket-canvas-small"
    rows: Sequence[Row] | None = None
    count: int = FEW
    seed: int = 0
    strength: float = 1.0
    batch: int = 20
    utility: bool = True
    probe: Probe | None = None
    confirm: Probe | None = None
    job: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class GanAttackSettings:
    """What is attacked in a GAN: `count` images of the suite, drawn with `seed`. `job` is recorded as it is."""

    suite: GanSuite | str = "pocket-faces"
    count: int = FEW
    seed: int = 0
    job: Mapping[str, Any] | None = None
