"""The judge of GANs on a tiny one: every promised number with its baseline, and the mark on homework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.judging.judge_gan import judge_gan
from benchmarks.metrics.perceptual import WEIGHTS, lpips
from benchmarks.pages import face_grid
from benchmarks.pages.face_grid import draw_faces
from benchmarks.probes import faces
from benchmarks.suites.gan_suite import GanSuite, gan_suite
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods.registry import build
from erase.request import Request, run_method
from erase.work import drain
from generators.pocket.faces.probe import FaceProbe
from generators.pocket.faces.words import ATTRIBUTES, attribute
from generators.stylegan2.io import files
from tests.toys.gan import ToyGan

SUITE = GanSuite(
    name="tiny", version=1, probe="pocket-probes/face-judge.safetensors",
    reference="pocket-probes/face-reference.safetensors", images=120, pairs=16,
)  # fmt: skip


@pytest.fixture
def probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Assets with a judge that finds each attribute in about half of what the toy draws."""
    monkeypatch.setattr(faces, "assets", lambda: tmp_path)
    torch.manual_seed(1)
    probe, gan = FaceProbe("judge").eval(), ToyGan()
    with torch.no_grad():
        images = gan.synthesis(gan.mapping(gan.latents(range(120)))) / 2 + 0.5
        logits = probe(faces.fitted(images.clamp(0, 1), 64))[0]
        probe.head.weight.mul_(20 / logits.std(0)[:, None])
        probe.head.bias.copy_((probe.head.bias - logits.median(0).values) * 20 / logits.std(0))
        features = probe(faces.fitted(images.clamp(0, 1), 64))[1]
    about = {"family": "face-probe", "kind": "judge", "attributes": ATTRIBUTES}
    files.write(tmp_path / "pocket-probes" / "face-judge.safetensors", probe.state_dict(), about)
    labels = (torch.rand(120, 6, generator=torch.Generator().manual_seed(2)) < 0.3).byte()
    files.write(
        tmp_path / "pocket-probes" / "face-reference.safetensors", {"features": features, "labels": labels}, about
    )
    return tmp_path


def edit(gan: ToyGan, size: float, by: str = "face-eye") -> Edit:
    torch.manual_seed(0)
    deltas = {name: size * torch.randn_like(w) for name, w in gan.network.named_parameters() if "conv" in name}
    return Edit(deltas, {"method": "test", "concepts": [{"name": "eyeglasses"}], "steered_by": by})


def test_a_gan_is_asked_how_often_it_draws_each_attribute(probed: Path) -> None:
    report = drain(judge_gan(ToyGan(), suite=SUITE))
    rates = {name: score for name, score in report.scores.items() if name.startswith("attribute_rate.")}
    assert set(rates) == {f"attribute_rate.{name.replace(' ', '_')}" for name in ATTRIBUTES}
    assert all(0.2 < score.value < 0.8 and score.n == 120 for score in rates.values())
    assert {"FID", "KID", "certain"} <= set(report.scores)


def test_an_edit_is_scored_beside_the_unedited_gan(probed: Path) -> None:
    gan = ToyGan()
    before = {key: value.clone() for key, value in gan.network.state_dict().items()}
    nothing, something = (drain(judge_gan(gan, edit(gan, size), SUITE)) for size in (0.0, 0.3))
    assert all(torch.equal(before[key], value) for key, value in gan.network.state_dict().items())
    promised = {"PUL", "FID", "KID", "Ret-FID", "gamma", "gamma_normalised", "LPIPS", "drift.hat", "drift.blond_hair",
                "seconds", "peak_memory_bytes", "storage_bytes"}  # fmt: skip
    assert promised <= set(something.scores) and "drift.eyeglasses" not in something.scores
    for name in ("PUL", "gamma", "LPIPS", "drift.hat"):
        assert nothing.scores[name].value == nothing.scores[name].baseline == 0
    assert something.scores["LPIPS"].value > 1e-4 and something.scores["gamma"].value > 0
    retrained = (report.scores["Ret-FID"] for report in (nothing, something))
    unmoved, moved = ((score.value, score.baseline) for score in retrained)
    assert unmoved[0] == unmoved[1] == moved[1] < moved[0]
    assert "FID" in something.table() and not something.marks


def test_homework_is_marked(probed: Path) -> None:
    gan = ToyGan()
    assert any(
        "circular evaluation" in mark for mark in drain(judge_gan(gan, edit(gan, 0.1, "face-judge"), SUITE)).marks
    )


def test_an_erased_identity_is_scored_beside_everybody_else(probed: Path, tmp_path: Path) -> None:
    gan = ToyGan()
    method = build("guide", None, {"steps": 60, "batch": 8, "lr": 0.01})
    edit = drain(run_method(method, Request(gan, [Concept(name="seed 150", kind="identity")])))
    report, nothing = (drain(judge_gan(gan, Edit(deltas, edit.about), SUITE)) for deltas in (edit.deltas, {}))
    for name, unchanged in (("ID", 1.0), ("ID_others", 1.0), ("FID", 0.0), ("drift.hat", 0.0)):
        assert nothing.scores[name].value == pytest.approx(unchanged, abs=1e-6) == nothing.scores[name].baseline
    assert report.scores["ID"].value < 1 and report.scores["ID"].n == 65 and report.scores["ID_others"].n == 120
    path = drain(draw_faces(gan, edit, tmp_path / "grid.png", SUITE, report))
    assert path.stat().st_size > 5_000


def test_the_picture_of_an_erased_attribute_is_about_it(
    probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple] = []

    def grid(*given: Any, **_: Any) -> Path:
        drawn.append(given)
        return tmp_path

    monkeypatch.setattr(face_grid, "grid", grid)
    gan = ToyGan()
    erased = edit(gan, 0.3)
    drain(draw_faces(gan, erased, tmp_path / "grid.png", SUITE, drain(judge_gan(gan, erased, SUITE))))
    ((_, _, lines, _, title),) = drawn
    assert title.startswith("eyeglasses erased from toy-gan")
    assert [line.heading for line in lines] == ["with it", "without"]


def test_what_cannot_be_judged_is_said(probed: Path) -> None:
    gan = ToyGan()
    with pytest.raises(BadInput, match="does not say what it erased"):
        drain(judge_gan(gan, Edit({}, {}), SUITE))
    (probed / "pocket-probes" / "face-reference.safetensors").unlink()
    with pytest.raises(BadInput, match="face-reference.safetensors is missing"):
        drain(judge_gan(gan, suite=SUITE))
    with pytest.raises(BadInput, match="pocket-faces"):
        gan_suite("pocket-face")
    assert attribute("Glasses") == "eyeglasses" and attribute("facial hair") == "beard"
    with pytest.raises(BadInput, match="smile"):
        attribute("smil")


def test_a_gan_of_other_pictures_is_read_with_a_warning(probed: Path) -> None:
    foreign = ToyGan()
    foreign.about = {"name": "photographs"}
    for asked in (None, edit(foreign, 0.1)):
        assert any("cartoon" in mark for mark in drain(judge_gan(foreign, asked, SUITE)).marks)
        assert not drain(judge_gan(ToyGan(), asked, SUITE)).marks


def test_lpips_itself_is_read_where_its_networks_weights_are(
    probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import squeezenet1_1

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    assert lpips(torch.device("cpu")) is None
    torch.manual_seed(0)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(squeezenet1_1().state_dict(), tmp_path / "hub" / "checkpoints" / WEIGHTS["squeeze"])
    gan = ToyGan()
    nothing, something = (drain(judge_gan(gan, edit(gan, size), SUITE)).scores["LPIPS"] for size in (0.0, 0.3))
    assert nothing.value == 0.0 < something.value
    assert something.probe == "LPIPS (squeeze)" and something.n == nothing.n < SUITE.images
