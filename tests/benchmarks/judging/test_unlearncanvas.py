"""UnlearnCanvas: its suites, its data folders and its classifiers, end to end on a small set in their layout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torchvision.transforms.functional import pil_to_tensor, resize

import generators
from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.metrics.alignment import resized
from benchmarks.probes.open_probe import probe_of
from benchmarks.suites.suite import Suite, load_suite
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from tests.benchmarks.doubles import TINY, Painter, turned
from tests.toys.pipelines import toy_folder

SMALL = TINY.model_copy(update={"rules": "released", "encode": "jpeg", "name": "canvas", "grid_seeds": (188, 288)})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def checkpoint(path: Path, classes: int, seed: int) -> Path:
    """A ViT of random weights in the published format, two heads of 64 wide."""
    torch.manual_seed(seed)
    network = VisionTransformer(img_size=32, patch_size=16, embed_dim=128, depth=2, num_heads=2, num_classes=classes)
    torch.save({"epoch": 3, "model_state_dict": network.state_dict()}, path)
    return path


@pytest.fixture
def classifiers(tmp_path: Path) -> Path:
    folder = tmp_path / "classifiers"
    folder.mkdir()
    checkpoint(folder / "style50.pth", 3, 0)
    checkpoint(folder / "style50_cls.pth", 2, 1)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five pictures per theme and object, in the published layout."""
    root, draw = tmp_path / "data", np.random.default_rng(0)
    for style in SMALL.styles:
        for thing in SMALL.objects:
            (root / style / thing).mkdir(parents=True)
            for number in range(1, 6):
                coarse = draw.integers(0, 255, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((70, 50)).save(root / style / thing / f"{number}.jpg")
    return root


def verdict(data: Path | None, classifiers: Path, **changes: object):  # type: ignore[no-untyped-def]
    suite = SMALL.model_copy(update={"probe": str(classifiers), "data": str(data) if data else None, **changes})
    painter = Painter(suite)
    return drain(judge(painter, turned(painter, "Van_Gogh", "Ink_Art"), suite=suite))


def test_the_label_orders_are_the_published_heads() -> None:
    full = load_suite("unlearncanvas-full")
    assert (len(full.styles), len(full.objects)) == (51, 20)
    assert (full.styles[0], full.styles[38], full.styles[50]) == ("Abstractionism", "Seed_Images", "Winter")
    assert (full.objects[0], full.objects[19]) == ("Architectures", "Waterfalls")
    with pytest.raises(ValueError, match="alphabetical"):
        Suite.model_validate(full.model_dump() | {"styles": list(reversed(full.styles))})


@pytest.mark.parametrize(
    ("tier", "style", "thing", "targets"),
    [("full", 5100, 5100, 70), ("standard", 1100, 1224, 20), ("small", 140, 140, 4)],
)
def test_every_tier_draws_what_is_published(tier: str, style: int, thing: int, targets: int) -> None:
    one = load_suite(f"unlearncanvas-{tier}")
    assert (len(one.shots(["Cartoon"])), len(one.shots(["Cats"])), len(one.targeted)) == (style, thing, targets)
    assert len({cell.shot for cell in one.shots(["Cartoon"])}) == style
    assert one.sentence("Cold_Warm", "Architectures") == "A Architectures image in Cold Warm style."
    assert one.sentence("Seed_Images", "Cats") == "A Cats image in Seed Images style."
    assert (one.guidance, one.encode, one.reading.target_rows_in_cra, one.reading.fid_rows) == (
        9.0,
        "jpeg",
        True,
        "all",
    )
    assert one.sampler == ("ddim" if tier == "full" else "dpm++")


def test_an_option_of_a_suite_file_changes_the_reading() -> None:
    one = Suite.model_validate(TINY.model_dump() | {"rules": "strict", "options": {"ira_themes": "with photo"}})
    assert (one.reading.ira_themes, one.reading.photo_rows_in_object_acc) == ("with photo", False)
    with pytest.raises(ValueError, match="option ira_themes: .*'with photos'"):
        Suite.model_validate(TINY.model_dump() | {"options": {"ira_themes": "with photos"}})
    with pytest.raises(ValueError, match="ira_theme"):
        Suite.model_validate(TINY.model_dump() | {"options": {"ira_theme": "with photo"}})


def test_the_protocol_from_answer_set_to_fid(data: Path, classifiers: Path) -> None:
    report = verdict(data, classifiers)
    assert report.about["probe"]["name"] == "unlearncanvas-vit"
    assert report.about["rules"]["target_rows_in_cra"] is True
    assert (report.scores["UA"].n, report.scores["IRA"].n, report.scores["CRA"].n) == (4, 4, 12)
    fid = report.scores["FID"]
    assert fid.n == 12 and fid.value > 0 and fid.baseline > 0
    assert fid.note.startswith("against the pictures of data, all rows")
    assert report.alternatives["strict"]["FID"].n == 8
    assert report.excluded == {}
    own = verdict(None, classifiers)
    assert own.scores["FID"].baseline == pytest.approx(0, abs=1e-6)


def test_missing_pictures_change_n_and_are_reported(data: Path, classifiers: Path) -> None:
    whole = verdict(data, classifiers)
    (data / "Ink_Art" / "Cats" / "2.jpg").unlink()
    (data / "Van_Gogh" / "Dogs" / "1.jpg").unlink()
    (data / "Van_Gogh" / "Dogs" / "5.jpg").unlink()  # of no seed of this suite
    holed = verdict(data, classifiers)
    assert holed.excluded == {"no picture of theirs in the data set": 2}
    assert (whole.scores["FID"].n, holed.scores["FID"].n) == (12, 10)
    assert holed.alternatives["strict"]["FID"].n == 7
    assert {name: holed.scores[name] for name in ("UA", "IRA", "CRA")} == {
        name: whole.scores[name] for name in ("UA", "IRA", "CRA")
    }


def test_missing_folders_are_a_sentence(data: Path, classifiers: Path, tmp_path: Path) -> None:
    (data / "Ink_Art" / "Cats").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="lacks 1 of the 6 folders of suite canvas, the first being Ink_Art/Cats"):
        verdict(data, classifiers)
    with pytest.raises(BadInput, match="no data folder"):
        verdict(tmp_path / "nowhere", classifiers)


def test_a_cache_that_cannot_be_written_costs_no_picture(
    data: Path, classifiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = verdict(data, classifiers)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "file"))
    assert verdict(data, classifiers).scores["FID"] == whole.scores["FID"]


def test_a_picture_that_is_none_is_a_sentence(data: Path, classifiers: Path) -> None:
    (data / "Ink_Art" / "Cats" / "1.jpg").write_bytes(b"<html>not found</html>")
    with pytest.raises(BadInput, match="cannot be read"):
        verdict(data, classifiers)


def test_the_classifiers_are_timms_own_networks(classifiers: Path) -> None:
    suite = SMALL.model_copy(update={"probe": str(classifiers)})
    pictures = torch.rand(2, 3, 40, 24, generator=torch.Generator().manual_seed(0))
    seen = probe_of(suite)(pictures)
    network = VisionTransformer(img_size=32, patch_size=16, embed_dim=128, depth=2, num_heads=2, num_classes=3).eval()
    network.load_state_dict(torch.load(classifiers / "style50.pth", weights_only=True)["model_state_dict"])
    with torch.no_grad():
        wanted = network((resized(pictures, (32, 32)) - 0.5) / 0.5).softmax(1)
    assert torch.allclose(seen.style_prob, wanted, atol=1e-6)
    assert seen.object_prob.shape == (2, 2)


def test_our_resize_agrees_with_pils(tmp_path: Path) -> None:
    photo = (
        Image.open(Path(__file__).parents[3] / "assets" / "docs" / "demo-grid.png")
        .convert("RGB")
        .crop((0, 100, 500, 500))
    )
    ours = resized(pil_to_tensor(photo)[None].float() / 255, (224, 224))[0]
    pils = pil_to_tensor(resize(photo, [224, 224])).float() / 255
    assert (ours - pils).abs().mean() <= 1 / 255
    plain = torch.nn.functional.interpolate(pil_to_tensor(photo)[None].float() / 255, (224, 224), mode="bilinear")[0]
    assert (plain - pils).abs().mean() > 1 / 255  # without antialiasing it would not


class Trap:
    """A pickle that would run something."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("trapped",)


def test_wrong_checkpoints_are_sentences(classifiers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    suite = SMALL.model_copy(update={"probe": str(classifiers)})
    checkpoint(classifiers / "style50.pth", 4, 0)
    with pytest.raises(BadInput, match="tells 4 styles apart and the suite has 3"):
        probe_of(suite)
    torch.save({"model_state_dict": Trap()}, classifiers / "style50.pth")
    with pytest.raises(BadInput, match="it asks for"):
        probe_of(suite)
    assert not (tmp_path / "trapped").exists()
    torch.save({"model_state_dict": {"fc.weight": torch.zeros(2, 2)}}, classifiers / "style50.pth")
    with pytest.raises(BadInput, match="no ViT of timm"):
        probe_of(suite)
    (classifiers / "style50.pth").write_bytes(b"half")
    with pytest.raises(BadInput, match="was refused|damaged"):
        probe_of(suite)
    (classifiers / "style50.pth").unlink()
    with pytest.raises(BadInput, match="has no style50.pth"):
        probe_of(suite)
    with pytest.raises(BadInput, match="--probe DIR"):
        probe_of(load_suite("unlearncanvas-small"))


def test_a_suites_sampler_is_borrowed(tmp_path: Path) -> None:
    model = generators.load(str(toy_folder(tmp_path / "toy")), device="cpu")
    shots, own = [Shot(3, "a cat")], model.scheduler
    drawn = {}
    for sampler in ("ddim", "dpm++"):
        with model.drawn_by(sampler):
            drawn[sampler] = drain(model.latents(shots, steps=4, guidance=2.0))
            assert model.scheduler is not own
    assert model.scheduler is own
    rolled = drain(model.trajectory(shots, guidance=2.0, steps=4))
    assert torch.allclose(
        rolled.z[:, 0].float(), model.noise(shots).cpu().float() if hasattr(model, "noise") else rolled.z[:, 0]
    )
    assert not torch.allclose(drawn["ddim"], drawn["dpm++"], atol=1e-4)
    with pytest.raises(BadInput, match="its own way only"):
        drain(judge(Painter(), settings=JudgeSettings(probe=None), suite=TINY.model_copy(update={"sampler": "ddim"})))
