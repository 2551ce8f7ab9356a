"""The search for a strength, on edits whose effect is known; and its alarms, on pictures that are no pictures."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.metrics.accuracy import wilson
from benchmarks.sweeps.strength import HALVINGS, RARE, Found, Look, Reading, search
from benchmarks.sweeps.strength import strength as searched
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Denoiser
from erase.work import Work, drain


def reading(strength: float, target: float, n: int = 40, alarms: tuple[str, ...] = ()) -> Reading:
    low, high = wilson(target, n)
    return Reading(strength=strength, target=target, low=low, high=high, n=n, paraphrase=target, neighbours=0.9,
                   unrelated=1.0, drift=0.0, alarms=alarms)  # fmt: skip


def found(threshold: float, breaks: float = math.inf, n: int = 40, base: float = 1.0) -> tuple[Found, list[float]]:
    """Search an edit that erases from `threshold` on and does damage from `breaks` on."""
    asked: list[float] = []

    def measure(strength: float) -> Work[Reading]:
        asked.append(strength)
        alarms = ("neighbours fell from 100% to 40%",) if strength >= breaks else ()
        return reading(strength, base if strength < threshold else 0.0, n, alarms)
        yield

    return drain(search(measure, "an eye")), asked


@pytest.mark.parametrize("threshold", [0.03, 0.31, 0.5, 0.77, 1.2, 1.4])
def test_the_threshold_is_found_to_a_sixty_fourth(threshold: float) -> None:
    result, asked = found(threshold)
    assert result.status == "found"
    assert threshold <= result.strength <= threshold + 0.5 / 2**HALVINGS + 1e-9
    assert asked[0] == 0.0 and len(asked) == len(set(asked))


def test_sixteen_clean_shots_certify_nothing() -> None:
    assert wilson(0.0, 16)[1] > RARE > wilson(0.0, 35)[1]
    assert found(0.5, n=16)[0].status == "guard"
    assert found(0.5, n=35)[0].status == "found"


def test_a_strength_whose_successor_breaks_is_not_taken() -> None:
    result, _ = found(0.7, breaks=0.8)  # 0.75 passes, 1.0 does not
    assert result.status == "guard" and "something else is lost" in result.advice
    assert result.strength == 0.75  # the best balance of those tried


def test_what_never_goes_and_what_was_never_there_are_told_apart() -> None:
    stays, _ = found(9.0)
    assert stays.status == "guard" and "No strength up to 2" in stays.advice
    absent, asked = found(0.5, base=0.3)
    assert absent.status == "absent" and asked == [0.0] and "only 30%" in absent.advice


def look(images: torch.Tensor, said: torch.Tensor, share: float = 1.0) -> Look:
    features = images.flatten(1)
    features = torch.nn.functional.normalize(features, dim=1)
    alike = (features @ features.T)[torch.triu_indices(len(images), len(images), 1).unbind()]
    panels: tuple[str, ...] = ("target", "paraphrase", "neighbours", "unrelated")
    finite = bool(images.isfinite().all())
    return Look(
        dict.fromkeys(panels, share),
        dict.fromkeys(panels, 40),
        float(images.std(dim=(1, 2, 3)).mean()),
        alike,
        finite,
        said,
    )


def test_alarms_ring_for_noise_constants_losses_and_nan_and_are_quiet_otherwise() -> None:
    draw = torch.Generator().manual_seed(0)
    images, said = torch.rand(12, 3, 8, 8, generator=draw), torch.randn(4, 8, 4, 8, 8, generator=draw)
    base = look(images, said)
    assert base.against(base, 0.0).alarms == () and base.against(base, 0.0).drift == 0.0
    loud = {
        "look alike": look(images[:1].expand(12, -1, -1, -1), said),
        "contrast is 0": look(torch.full_like(images, 0.5), said),
        "contrast is 3": look(images + torch.randn(images.shape, generator=draw), said),
        "moved by 5": look(images, said * 1.5),
        "neighbours fell": look(images, said, share=0.6),
        "no longer finite": look(images * math.nan, said),
    }
    for words, now in loud.items():
        assert any(words in alarm for alarm in now.against(base, 1.0).alarms), words


def test_too_few_shots_and_an_edit_of_nothing_are_sentences(toy: Denoiser) -> None:
    with pytest.raises(BadInput, match="16 shots cannot prove a rate below 10%; 35"):
        drain(searched(toy, Edit({}, {}), shots=16))
    with pytest.raises(BadInput, match="does not say what it erased"):
        drain(searched(toy, Edit({}, {})))
