"""The training command: what it writes, and that it goes on from there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from generators.pocket import train_gan
from generators.pocket.face_probe import FaceProbe
from generators.stylegan2 import files


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


def test_frechet_distance_of_gaussians() -> None:
    torch.manual_seed(0)
    one = torch.randn(20_000, 3)
    assert train_gan.frechet(one, one) == pytest.approx(0, abs=1e-9)
    # means 2 apart: 4; standard deviations 1 and 3 in each of three directions: 3 · (3 - 1)²
    assert train_gan.frechet(one, one * 3 + torch.tensor([2.0, 0, 0])) == pytest.approx(16, rel=0.03)
