"""Attacks on GANs: hidden is not erased, destroyed is, and the numbers stand beside the unedited GAN's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from app.cli.main import main
from benchmarks.attacks.gan.prompt_boundary import directions
from benchmarks.attacks.gan.run import GanAttackReport, attack_gan, build
from benchmarks.attacks.registry import ON_GANS, attack_kind, every_attack
from benchmarks.attacks.settings import GanAttackSettings
from erase.edit import Edit
from erase.errors import BadInput
from erase.gan.distillation import drawn_codes
from erase.work import drain
from tests.benchmarks.judging.test_judge_gan import SUITE, probed
from tests.toys.gan import ToyGan

__all__ = ["probed"]  # a fixture


def attacked(edit: Edit | None, name: str, budget: int = 8, seed: int = 0) -> GanAttackReport:
    return drain(
        attack_gan(
            ToyGan(), edit, "eyeglasses", build(name, budget), GanAttackSettings(suite=SUITE, count=6, seed=seed)
        )
    )


def edit(part: str, size: float) -> Edit:
    """Noise on the weights of one part."""
    torch.manual_seed(0)
    deltas = {name: size * torch.randn_like(w) for name, w in ToyGan().network.named_parameters() if part in name}
    return Edit(deltas, {"method": "test", "concepts": [{"name": "eyeglasses"}]})


def grey() -> Edit:
    """Draws the same picture whatever the code."""
    deltas = {name: -w.detach() for name, w in ToyGan().network.named_parameters() if "torgb" in name}
    return Edit(deltas, {"method": "test", "concepts": [{"name": "eyeglasses"}]})


def test_what_only_the_mapping_hides_is_found_at_once(probed: Path) -> None:
    report = attacked(edit("mapping.", 1.0), "code-inversion")
    assert report.scores["pre_ASR"].value == report.scores["ASR"].value == 1.0
    assert report.broken == () and len(report.rows) == 6  # nothing had to be searched for


def test_what_is_no_longer_drawn_is_not_found(probed: Path) -> None:
    for name in ON_GANS:
        report = attacked(grey(), name)
        assert report.scores["ASR"].value in (0.0, 1.0)  # one picture: the judge says the same of every row
        assert report.scores["ASR"].value == report.scores["pre_ASR"].value


def test_a_search_finds_more_than_none(probed: Path) -> None:
    report = attacked(None, "latent-search", 60)
    assert report.scores["pre_ASR"].value == 0.0
    assert report.scores["ASR"].value == report.scores["ASR"].baseline
    inverted = attacked(edit("conv", 0.4), "code-inversion", 60)
    assert inverted.scores["ASR"].value >= inverted.scores["pre_ASR"].value
    assert "ASR_control" in inverted.scores and inverted.scores["ASR"].baseline == 1.0
    assert math.isnan(inverted.scores["FID"].value) and inverted.scores["FID"].note
    assert len(inverted.broken) == sum(row["after"] and not row["before"] for row in inverted.rows)


def test_the_gan_is_left_as_it_was_and_the_same_seed_says_the_same(probed: Path) -> None:
    gan, applied = ToyGan(), edit("conv", 0.2)
    before = {name: value.clone() for name, value in gan.network.state_dict().items()}
    work = attack_gan(gan, applied, "eyeglasses", build("latent-search", 4), GanAttackSettings(suite=SUITE, count=6))
    for _ in range(8):
        next(work)
    work.close()
    assert all(torch.equal(before[name], value) for name, value in gan.network.state_dict().items())
    assert attacked(applied, "latent-search").rows == attacked(applied, "latent-search").rows


def test_directions_raise_the_score_of_their_wording() -> None:
    gan = ToyGan()
    w = drawn_codes(gan, range(256))
    ways = directions(gan, w, "beard", seed=0)
    assert len(ways) >= 16 and "aside" in ways[-1][0] and "aside" not in ways[0][0]
    assert len({words for words, _ in ways if "aside" not in words}) >= 4
    assert all(bool(step.isfinite().all()) and float(step.norm()) > 0 for _, step in ways)


def test_names_and_numbers_out_of_place_are_refused(probed: Path) -> None:
    assert set(ON_GANS) < set(every_attack()) and attack_kind("Code_Inversion").__name__ == "Inversion"
    with pytest.raises(BadInput, match="latent-search"):
        build("latent-serch")
    with pytest.raises(BadInput, match="budget"):
        build("latent-search", 0)
    with pytest.raises(BadInput, match="fewer --rows"):
        drain(attack_gan(ToyGan(), None, "hat", build("latent-search", 2), GanAttackSettings(suite=SUITE, count=5000)))


def test_the_command_names_the_attacks_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "pocket-gan", "--concept", "hat", "--attack", "random"]) == 2
    assert "code-inversion, latent-search, prompt-boundary" in capsys.readouterr().err
    assert main(["attack", "pocket-sd", "--concept", "hat", "--attack", "latent-search", "--prompts", "x.csv"]) == 2
    assert "--prompts has no effect" in capsys.readouterr().err
    assert main(["attacks", "Latent_Search", "--json"]) == 0
    assert '"budget"' in capsys.readouterr().out
