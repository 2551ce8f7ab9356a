"""The cost benchmark: the hook counts truly, and the published loop costs what its description says."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.speed import published_loops
from benchmarks.speed.methods import Plan, _held_out, counted, speed_doco, speed_esd
from benchmarks.speed.published_loops import published_advunlearn, published_doco, published_esd
from erase.concept import Concept
from erase.edit import Edit
from erase.rng import stream
from erase.work import drain
from tests.toys.compare import same_bits, weights
from tests.toys.denoiser import Toy

GOGH = Concept(name="Van Gogh", kind="style")


def test_the_hook_counts_samples_also_in_copies_and_goes_away() -> None:
    toy = Toy()
    z, t, codes = torch.zeros(3, 4, 8, 8), torch.tensor(5), toy.encode(["a", "b", "c"])
    with torch.no_grad(), counted(toy.network["unet"]) as forwards:
        toy.predict(z, t, codes)
        copy.deepcopy(toy).predict(z[:2], t, codes[:2])
        toy.network["unet"](sample=z[:1], timestep=t, encoder_hidden_states=codes.tokens[:1])
        assert forwards() == 6
    with torch.no_grad():
        toy.predict(z, t, codes)
    assert forwards() == 6


def test_the_published_loop_costs_what_its_description_says() -> None:
    toy, steps = Toy(), 6
    before = weights(toy.network)
    with counted(toy.network["unet"]) as forwards:
        edit = drain(published_esd(toy, GOGH, iterations=steps, lr=1e-3))
    # Of a grid of 50, k is drawn; min(49, 50 − k) guided steps count 2 each, then e_∅, e_c and the student.
    ks = [int(torch.randint(50, (1,), generator=stream(0, "published", step))) for step in range(steps)]
    assert forwards() == sum(2 * min(49, 50 - k) + 3 for k in ks)
    assert same_bits(weights(toy.network), before)
    assert all(".attn2." in name for name in edit.deltas)
    assert any(delta.abs().max() > 0 for delta in edit.deltas.values())


def test_the_mean_cost_of_the_published_loop_is_the_documented_one() -> None:
    mean = sum(2 * len(published_loops._times(20)[: 50 - k]) + 3 for k in range(50)) / 50
    assert mean == pytest.approx(53.96)
    assert (published_loops._times(20)[0], published_loops._times(20)[-1], len(published_loops._times(20))) == (
        961,
        1,
        49,
    )


def test_the_published_adversarial_loop_costs_what_its_description_says() -> None:
    toy, steps = Toy(), 2
    before = weights(toy.network)
    with counted(toy.network["unet"]) as forwards:
        edit = drain(published_advunlearn(toy, GOGH, ["a boat", "a cup"], iterations=2, lr=1e-3, attack_steps=steps))
    # Per iteration: K attacks and one update of a rollout and three predictions, five of a rollout and two.
    rollouts = 2 * (steps + 1 + 5)
    least, most = 2 * 1 * rollouts, 2 * 49 * rollouts
    asked = forwards() - 2 * (3 * (steps + 1) + 2 * 5)
    assert asked % 2 == 0 and least <= asked <= most
    mean = sum(2 * len(published_loops._times(20)[: 50 - k]) for k in range(50)) / 50
    assert 30 * (mean + 3) + (mean + 3) + 5 * (mean + 2) == pytest.approx(1938, abs=1)  # at K = 30, as documented
    assert same_bits(weights(toy.network), before)
    assert all(name.startswith("text.") for name in edit.deltas)
    assert any(delta.abs().max() > 0 for delta in edit.deltas.values())


def test_the_published_critic_loop_costs_what_its_description_says(monkeypatch: pytest.MonkeyPatch) -> None:
    toy, graphs = Toy(), []
    before = weights(toy.network)
    project = published_loops.project

    def spy(gradient: dict[str, torch.Tensor], retain: dict[str, torch.Tensor], strength: float) -> object:
        graphs.append(len(gradient) == len(retain) and strength == 1.0)
        return project(gradient, retain, strength)

    monkeypatch.setattr(published_loops, "project", spy)
    with counted(toy.network["unet"]) as forwards:
        edit = drain(published_doco(toy, GOGH, iterations=3, lr=1e-3, batch=4, pictures=2, steps=5))
    assert forwards() == 2 * 5 * 2 + 3 * (4 + 8)  # guided drawing; then teacher, and student with what is retained
    assert graphs == [True] * 3
    assert same_bits(weights(toy.network), before)
    assert all(".attn2.to_k" in name or ".attn2.to_v" in name for name in edit.deltas)
    assert any(delta.abs().max() > 0 for delta in edit.deltas.values())


def test_the_critic_loops_are_charged_for_the_same_steps() -> None:
    result = drain(speed_doco(Toy(), Plan(steps=4, lr=1e-3)))
    drawn, steps = 16 * 5 * 2, 4
    assert result.published_forwards == pytest.approx((drawn + steps * 24) / steps)
    # One step of warm-up besides, and the teacher asked beforehand.
    assert result.ours_forwards == pytest.approx((drawn + 8 * (steps + 1) + 8 + steps * 16) / steps)
    assert result.wall_ratio == result.published_seconds / result.ours_seconds
    assert "4 steps of 8 + 8 lessons" in result.note


def test_its_sampler_is_plain_ddim() -> None:
    toy = Toy()
    z, codes = toy.noise([published_loops.Shot(3)]), toy.encode(["Van Gogh", ""])
    present, absent = toy.predict(torch.cat([z, z]), torch.tensor([961, 961]), codes).detach().chunk(2)
    noise = absent + 3 * (present - absent)
    clean = (z - toy.path.noise[961] * noise) / toy.path.signal[961]
    expected = toy.path.add_noise(clean, noise, torch.tensor(941))
    assert published_loops._guided(toy, z, 961, 20, codes) == pytest.approx(expected.numpy(), abs=1e-5)


def test_its_loss_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_loops, "GRID", 5)  # short rollouts: this is about learning, not about cost
    losses: list[float] = []
    drain(published_esd(Toy(), GOGH, iterations=60, lr=3e-3), lambda step: losses.append(step.loss["erase"]))
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_both_loops_in_one_run() -> None:
    toy = Toy()
    before = weights(toy.network)
    result = drain(speed_esd(toy, Plan(steps=10, lr=4e-3, suite=None)))
    assert same_bits(weights(toy.network), before)
    assert result.ours_forwards < result.published_forwards
    # The quick preset: 8 rollouts of 20 guided steps, and 2 lessons a step.
    assert result.ours_forwards == pytest.approx((8 * 20 * 2 + 10 * 2) / 10)
    assert 35 < result.published_forwards < 75
    assert result.wall_ratio == result.published_seconds / result.ours_seconds > 1
    assert result.loss["ours"] < result.loss["unedited"]
    assert result.loss["published"] < result.loss["unedited"]
    assert "10 gradient steps each, none extrapolated" in result.note


def test_the_held_out_loss_is_that_of_the_text_encoder_worn() -> None:
    toy = Toy()
    name = next(name for name, _ in toy.network.named_parameters() if name.startswith("text"))
    edit = Edit({name: torch.randn(toy.network.get_parameter(name).shape, generator=stream(0, "edit"))}, {})
    losses = drain(_held_out(toy, GOGH, {"unedited": None, "edited": edit}, 0, rollouts=2))
    assert losses["edited"] != losses["unedited"]


def test_the_command_speaks_one_json_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("generators.load", lambda *_, **__: Toy())
    monkeypatch.setattr(published_loops, "GRID", 5)
    assert main(["speed", "esd", "--steps", "3", "--no-judge", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["esd"].keys() >= {"ours_forwards", "published_forwards", "wall_ratio", "memory_ratio", "note"}
    assert (
        main(["speed", "esd", "advunlearn", "doco", "unlearndiffatk", "--steps", "2", "--outer", "1", "--no-judge"])
        == 0
    )
    assert "per gradient step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["speed", "esdd"], "esd"),
        (["speed", "--steps", "0"], "--steps"),
        (["speed", "--lr", "-1"], "--lr"),
        (["pocket", "--methods", "uze", "--out", "x"], "uce"),
        (["pocket", "--suite", "pocket-canvs", "--out", "x"], "pocket-canvas"),
        (["pocket", "--targets", "Catz", "--out", "x"], "Cats"),
        (["pocket", "--set", "lr", "--out", "x"], "KNOB=VALUE"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert "Traceback" not in captured.err
