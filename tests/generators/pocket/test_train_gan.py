"""The training command: what it writes, and that it goes on from there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from generators.pocket.faces.probe import FaceProbe
from generators.pocket.train import gan as train_gan
from generators.pocket.train import start_gan
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.io import files
from generators.stylegan2.network import Shape, StyleGenerator
from generators.stylegan2.training import Recipe, Run


def command(folder: Path, *more: str) -> list[str]:
    asked = ["--minutes", "0.03", "--faces", "12", "--batch", "2", "--r1-every", "1", "--save-every", "0.1"]
    return ["train_gan", *asked, "--out", str(folder / "gan"), "--data", str(folder / "data"), *more]


@pytest.mark.slow
def test_it_trains_saves_resumes_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halved = {key: value.half() for key, value in FaceProbe("judge").state_dict().items()}
    header = {"family": "face-probe", "kind": "judge", "attributes": train_gan.ATTRIBUTES}
    files.write(tmp_path / "face-judge.safetensors", halved, header)
    monkeypatch.setattr(sys, "argv", command(tmp_path))
    train_gan.main()
    names = {file.name for file in (tmp_path / "gan").iterdir()}
    assert names == {"generator.safetensors", "critic.safetensors", "sheet.png", "report.json"}
    generator, about = files.load_generator(tmp_path / "gan" / "generator.safetensors")
    assert about["steps"] >= 0
    assert generator.mapping.w_avg.abs().max() > 0

    monkeypatch.setattr(sys, "argv", command(tmp_path, "--resume", "--probes", str(tmp_path), "--minutes", "0.1"))
    train_gan.main()
    report = json.loads((tmp_path / "gan" / "report.json").read_text())
    assert report["steps"] > about["steps"]
    assert set(report["rates"]) == set(train_gan.ATTRIBUTES)
    (tmp_path / "data" / "gan-state.safetensors").unlink()  # as on another machine: only the weights travelled
    run = train_gan.begun(
        train_gan.Recipe(batch=2),
        train_gan.Shape(),
        0,
        "cpu",
        tmp_path / "gan",
        tmp_path / "data" / "gan-state.safetensors",
    )
    assert run.steps == report["steps"]
    assert torch.equal(run.generator.state_dict()["synthesis.b4.const"], run.average.state_dict()["synthesis.b4.const"])


@pytest.mark.slow
def test_the_start_teaches_part_by_part_goes_on_and_is_held_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = str(tmp_path / "data"), str(tmp_path / "gan")
    asked = ["start_gan", "--faces", "12", "--batch", "2", "--data", data, "--out", out]
    short = ["--synthesis", "0.01", "--mapping", "0.01", "--together", "0.01"]
    monkeypatch.setattr(sys, "argv", [*asked, *short])
    start_gan.main()
    first = files.read(tmp_path / "data" / "start-state.safetensors")[0]
    generator, about = files.load_generator(tmp_path / "gan" / "generator.safetensors")
    assert about["taught"]["faces"] == 12 and generator.shape == start_gan.SHAPE
    monkeypatch.setattr(sys, "argv", [*asked, "--synthesis", "0", "--mapping", "0.01", "--together", "0"])
    start_gan.main()
    second = files.read(tmp_path / "data" / "start-state.safetensors")[0]
    same = {name for name in first if torch.equal(first[name], second[name])}
    assert {name for name in first if name.startswith(("reader.", "generator.synthesis."))} <= same
    assert "generator.mapping.fc0.weight" not in same

    monkeypatch.setattr(sys, "argv", command(tmp_path, "--resume", "--taught", "10"))
    train_gan.main()
    trained, about = files.load_generator(tmp_path / "gan" / "generator.safetensors")
    assert trained.shape == start_gan.SHAPE and about["taught"]["faces"] == 12 and about["steps"] >= 1


def lessons(*, settled: bool = False) -> start_gan.TrainingBatch:
    torch.manual_seed(0)
    run = Run(StyleGenerator(start_gan.SHAPE), Critic(start_gan.SHAPE), Recipe(batch=2), 0)
    codes = torch.randn(4, start_gan.SHAPE.z_dim)
    reader = torch.nn.Linear(start_gan.factors(codes).shape[1], start_gan.SHAPE.w_dim)
    pictures = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    return start_gan.TrainingBatch(run, reader, pictures, codes, 0.003, lambda *_: None, settled)


def test_an_error_of_w_counts_as_much_as_it_changes_the_picture() -> None:
    taught = lessons()
    synthesis, seen = taught.run.generator.synthesis.requires_grad_(False), taught.visible().double()
    w = taught.reader(start_gan.factors(torch.randn(48, 128))).detach()
    most = torch.linalg.eigh(seen @ seen.T).eigenvectors[:, -1].float()
    for step in (most, *torch.eye(128)[:2]):
        ends = [synthesis((w + way * 1e-2 * step)[:, None].expand(-1, 10, -1), "none") for way in (-1, 1)]
        changed = ((ends[1] - ends[0]) / 2e-2).square().sum((1, 2, 3)).mean()
        torch.testing.assert_close((step.double() @ seen).square().sum().float(), changed, rtol=0.35, atol=0)


@pytest.mark.parametrize("settled", [False, True])
def test_synthesis_leaves_w_alone_once_the_mapping_has_learnt_it(settled: bool) -> None:
    taught = lessons(settled=settled)
    before, drawing = (value.clone() for value in (taught.reader.weight, taught.run.generator.synthesis.block(4).const))
    taught.synthesis(iter([0.0, 0.1]))
    assert torch.equal(taught.reader.weight, before) is settled
    assert not torch.equal(taught.run.generator.synthesis.block(4).const, drawing)


def test_what_is_held_to_pulls_towards_the_taught_pictures() -> None:
    torch.manual_seed(0)
    run = Run(StyleGenerator(Shape()), Critic(Shape()), Recipe(batch=4), 0)
    pictures, codes = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), torch.randn(4, 128)
    loss = train_gan.held(pictures, codes, 1.0, run)
    before = float(loss(run.generator).detach())
    optimiser = torch.optim.Adam(run.generator.synthesis.parameters(), 0.003)
    for _ in range(12):
        optimiser.zero_grad()
        loss(run.generator).backward()
        optimiser.step()
    assert float(loss(run.generator).detach()) < 0.9 * before
    exact = pictures.float() / 127.5 - 1
    assert float(train_gan.off(exact, exact)) == 0.0
    corner, middle = exact.clone(), exact.clone()
    corner[:, :, :4, :4] += 0.5
    middle[:, :, 33:37, 30:34] += 0.5
    assert train_gan.off(middle, exact) > 2 * train_gan.off(corner, exact)  # eyes count for more than the background


def test_frechet_distance_of_gaussians() -> None:
    torch.manual_seed(0)
    one = torch.randn(20_000, 3)
    assert train_gan.frechet(one, one) == pytest.approx(0, abs=1e-9)
    # means 2 apart: 4; standard deviations 1 and 3 in each of three directions: 3 · (3 - 1)²
    assert train_gan.frechet(one, one * 3 + torch.tensor([2.0, 0, 0])) == pytest.approx(16, rel=0.03)
