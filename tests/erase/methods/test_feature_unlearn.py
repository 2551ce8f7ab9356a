"""Feature unlearning: every code is taught to be drawn as the code without the feature."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from erase.concept import Concept
from erase.gan.distillation import drawn_codes, layered, multiscale_l1
from erase.methods import feature_unlearn
from erase.methods.feature_unlearn import FeatureUnlearn
from erase.request import Request, run_method
from erase.rng import stream
from erase.training.deltas import DeltaOptimizer
from erase.work import drain
from tests.toys.gan import ToyGan


def test_the_student_draws_its_codes_as_the_teacher_draws_them_without_the_feature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan, clicked = ToyGan(), {"yes": list(range(8)), "no": list(range(20, 30))}
    (tmp_path / "marks.json").write_text(json.dumps(clicked), encoding="utf-8")
    heard: list[Mapping[str, Tensor]] = []

    def learning(model: ToyGan, masters: DeltaOptimizer, work: Callable[[], Mapping[str, Tensor]]) -> dict[str, float]:
        with torch.no_grad():
            heard.append(work())  # of a student that is still the teacher
        return {}

    monkeypatch.setattr(feature_unlearn, "learning", learning)
    method = FeatureUnlearn(marks=str(tmp_path / "marks.json"), steps=1, batch=8, further=0.5)
    drain(run_method(method, Request(gan, [Concept(name="hat", kind="attribute")])))

    present, absent = drawn_codes(gan, clicked["yes"]), drawn_codes(gan, clicked["no"])
    e = F.normalize(present.mean(0) - absent.mean(0), dim=0)
    usual = (absent @ e).median() - 0.5 * (absent @ e).std()
    rng = stream(0, "batch", 0)
    w = torch.cat([rows[torch.randint(len(rows), (4,), generator=rng)] for rows in (present, absent)])
    excess = (w @ e - usual).clamp(min=0)
    assert int((excess > 0).sum()) >= 4
    with torch.no_grad():
        drawn = gan.synthesis(layered(gan, w))
        wanted = gan.synthesis(layered(gan, w - excess[:, None] * e))
    torch.testing.assert_close(heard[0]["erase"], multiscale_l1(drawn[:4], wanted[:4]))
    torch.testing.assert_close(heard[0]["keep"], multiscale_l1(drawn[4:], wanted[4:]))
    assert float(heard[0]["erase"]) > 0
