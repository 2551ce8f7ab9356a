"""A GAN's latents without a page: drawn, marked, kept, and learnt from; and a GAN's edit looked at on its own seeds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from app.cli.parser import parse
from app.queue import paths, queue
from app.web import actions, gallery, labels
from benchmarks.pages.face_look import _verdicts, look_gan
from benchmarks.suites.gan_suite import gan_suite
from erase.edit import Edit
from erase.errors import BadInput
from erase.work import drain
from generators.stylegan2.io.checkpoint import Checkpoint, write_folder, write_nvlabs
from tests.toys.gan import ToyGan
from tests.toys.pipelines import toy_folder


@pytest.fixture(autouse=True)
def studio_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of tests, in which nobody works on the queue."""
    monkeypatch.setattr(queue, "start", lambda device=None: None)
    return tmp_path / "home"


def mark_all(model: str, concept: str, yes: range, no: range) -> None:
    for side, seeds in (("yes", yes), ("no", no)):
        for seed in seeds:
            labels.mark(model, concept, seed, side)  # type: ignore[arg-type]


def test_a_seed_has_one_mark_and_loses_it_again() -> None:
    labels.mark("pocket-gan", "hat", 3, "yes")
    labels.mark("pocket-gan", "hat", 1, "yes")
    assert labels.mark("pocket-gan", "hat", 3, "no") == {"yes": [1], "no": [3]}
    assert labels.mark("pocket-gan", "hat", 1, "") == {"yes": [], "no": [3]}
    assert labels.read("pocket-gan", "beard") == {"yes": [], "no": []}
    with pytest.raises(BadInput, match="is not a mark"):
        labels.mark("pocket-gan", "hat", 1, "perhaps")  # type: ignore[arg-type]
    for nothing in ("", "  ", None):
        with pytest.raises(BadInput, match="Type the concept first"):
            labels.mark("pocket-gan", nothing, 1, "yes")


def test_what_a_run_was_made_from_does_not_change_with_later_clicks() -> None:
    mark_all("pocket-gan", "hat", range(8), range(8, 16))
    task = actions.erase_marked("pocket-gan", "hat", {"steps": 2}, measure=False)
    args = parse(task.commands[0])
    assert (args.method, args.kind, args.knob_steps) == ("adapt-unlearn", "attribute", "2")
    told = json.loads(Path(args.knob_marks).read_text())
    assert told == {"yes": list(range(8)), "no": list(range(8, 16))}
    assert actions.erase_marked("pocket-gan", "hat", {"steps": 2}, measure=False).id == task.id
    labels.mark("pocket-gan", "hat", 20, "yes")
    assert actions.erase_marked("pocket-gan", "hat", {"steps": 2}, measure=False).run != task.run
    assert json.loads(Path(args.knob_marks).read_text()) == told


def test_too_few_marks_are_a_sentence() -> None:
    mark_all("pocket-gan", "hat", range(8), range(8, 15))
    with pytest.raises(BadInput, match="8 are marked as having hat, 7 as not having it; at least 8 of each"):
        actions.erase_marked("pocket-gan", "hat")
    assert "1 more that have it not" in gallery.counted("pocket-gan", "hat")
    assert "8 have it<" in gallery.counted("pocket-gan", "hat")
    assert "Type the concept first" in gallery.counted("pocket-gan", None)
    assert "&lt;b&gt;" in gallery.counted("pocket-gan", "<b>")


def test_latents_are_drawn_once_and_shown_with_their_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from app.cli.main import main

    model = ToyGan()
    write_folder(Checkpoint(model.network, model.critic, model.about), tmp_path / "gan")
    name = str(tmp_path / "gan")
    assert "Press Draw" in gallery.latents(name, "hat")
    task = actions.draw_latents(name, 4)
    assert parse(task.commands[0]).seeds == "4:52"
    out = task.commands[0][-1]
    assert main(["latents", name, "--seeds", "4:7", "--out", out]) == 0
    pictures = gallery.drawn(name)
    assert pictures is not None
    before = {path: path.stat().st_mtime_ns for path in pictures.iterdir()}
    assert [path.name for path in sorted(before)] == [paths.latent_picture(seed) for seed in (4, 5, 6)]
    images = model.seen(model.synthesis(model.mapping(model.latents([5]))))
    drawn = torch.tensor(list(Image.open(pictures / paths.latent_picture(5)).convert("RGB").tobytes())) / 255
    assert torch.allclose(drawn.reshape(8, 8, 3).permute(2, 0, 1), images[0], atol=0.5 / 255 + 1e-6)
    assert main(["latents", name, "--seeds", "4:8", "--out", out]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    labels.mark(name, "hat", 5, "no")
    shown = gallery.latents(name, "hat", 4)
    assert shown.count("<button") == 4
    assert 'data-seed="5" data-mark="no" aria-label="seed 5, has it not"' in shown
    assert shown.count('data-mark=""') == 3
    assert gallery.latents(name, "beard", 4).count('data-mark=""') == 4


def test_a_model_is_told_by_its_name_or_its_files(tmp_path: Path) -> None:
    model = ToyGan()
    write_folder(Checkpoint(model.network, model.critic, model.about), tmp_path / "gan")
    exported = write_nvlabs(Checkpoint(model.network, None, model.about), tmp_path / "exported.safetensors")
    gans = ["pocket-gan", str(tmp_path / "gan"), str(exported), str(tmp_path / "gan" / "generator.safetensors")]
    sd = toy_folder(tmp_path / "sd")
    others = ["pocket-sd", str(sd), str(next(sd.rglob("unet/*.safetensors"))), "owner/name", ""]
    assert [actions.family(name) for name in gans] == ["gan"] * len(gans)
    assert [actions.family(name) for name in others] == ["denoiser"] * len(others)
    with pytest.raises(BadInput, match="is not a GAN, so it has no latents"):
        actions.draw_latents("pocket-sd")


def test_a_gans_edit_is_looked_at_at_every_strength_where_nobody_can_read_its_pictures() -> None:
    model = ToyGan()
    weight = next(iter(dict(model.network.named_parameters())))
    edit = Edit({weight: torch.ones_like(dict(model.network.named_parameters())[weight])}, {"concepts": ["Cats"]})
    seen = drain(look_gan(model, edit, gan_suite("pocket-faces"), seeds=(7, 9), strengths=(1.0,)))
    assert [pair.shot.seed for pair in seen.lines[0].pairs] == [7, 9]
    plain = model.seen(model.synthesis(model.mapping(model.latents([7, 9]))))
    assert torch.equal(seen.pictures[0.0], plain)
    assert not torch.equal(seen.pictures[1.0], plain)
    assert seen.probe == "nobody"
    assert all(verdict.good is None for told in seen.verdicts.values() for verdict in told)


def test_a_picture_without_the_concept_should_keep_what_was_clearly_read_in_it() -> None:
    was = torch.tensor([[0.9, 0.95], [0.1, 0.95], [0.1, 0.95], [0.1, 0.6]])
    now = torch.tensor([[0.2, 0.05], [0.1, 0.95], [0.1, 0.05], [0.1, 0.4]])
    gone = torch.tensor([True, False, False, False])
    verdicts = _verdicts(was, now, [0], ["hat"], gone)
    # Lost the concept; kept the other attribute; lost it; it had never been sure.
    assert [verdict.good for verdict in verdicts] == [True, True, False, True]
    assert verdicts[0].lines == ("20 % hat",)
    assert [verdict.good for verdict in _verdicts(was, now, [0], ["hat"], None)] == [None] * 4
