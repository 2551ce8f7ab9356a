"""The exported folder: what is in it, that stock diffusers draws the same from it, and that it is whole or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file

import generators
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Shot
from erase.work import Step, drain
from generators.assets import assets
from generators.export import card as cards
from generators.export import staging
from generators.export import verify as proving
from generators.export.export import export
from generators.export.formats import diffusers_folder as writing
from generators.export.formats.pipeline import export_pipeline
from generators.export.standalone import reopen
from generators.export.verify import Drawn, Unproven
from generators.stable_diffusion import adapter
from tests.toys.pipelines import FAMILIES, patch_json

SHOTS = [Shot(1, "a cat"), Shot(2, "van gogh")]
ABOUT = {
    "method": "uce",
    "knobs": {"push": 1.0},
    "concepts": [{"name": "Van Gogh", "kind": "style", "prompts": [], "anchor": "painting"}],
    "keep": [{"name": "cat", "kind": "object", "prompts": [], "anchor": None}],
    "seed": 7,
    "base": "0123abcd",
    "model": "toy",
    "versions": {"torch": "2"},
}


def some_edit(model) -> Edit:
    """A large random change of readers and text encoders."""
    randomness = torch.Generator().manual_seed(0)
    parameters = dict(model.network.named_parameters())
    names = [f"{name}.weight" for name in model.readers()]
    names += [name for name in parameters if name.startswith("text") and name.endswith("fc1.weight")]
    return Edit({name: torch.randn(parameters[name].shape, generator=randomness) for name in names}, ABOUT)


def bits(network) -> list[torch.Tensor]:
    return [parameter.clone() for parameter in network.parameters()]


@pytest.fixture
def unproven(monkeypatch):
    """Exports without the clean process, which takes seconds, for tests that are about something else."""

    def agree(request):
        yield Step("prove", 0)
        model = generators.load(request["path"], device="cpu")
        shots = [Shot(seed, prompt) for seed, prompt in zip(request["seeds"], request["prompts"], strict=True)]
        latents = drain(model.latents(shots, steps=request["steps"]))
        return Drawn(latents, model.decode(latents))

    monkeypatch.setattr(proving, "_stock", agree)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_stock_diffusers_draws_the_worn_edit_in_a_clean_process(models, family, tmp_path, monkeypatch):
    model, edit = models[family], some_edit(models[family])
    monkeypatch.setattr(model, "default_steps", 4)
    before, plain = bits(model.network), drain(model.sample(SHOTS, steps=4))
    exported = drain(export(model, edit, tmp_path / "out", strength=0.5, shots=SHOTS))
    assert exported.max_difference <= 1e-5
    assert exported.max_latent_difference <= 1e-4
    assert all(torch.equal(old, new) for old, new in zip(before, model.network.parameters(), strict=True))
    with edit.applied(model.network, 0.5):
        applied = drain(model.sample(SHOTS, steps=4))
    opened = generators.load(tmp_path / "out", device="cpu")
    assert torch.equal(drain(opened.sample(SHOTS, steps=4)), applied)
    assert (applied - plain).abs().max() > 0.05  # the edit does something, so the comparison could fail
    assert exported.bytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert set(exported.files) >= {"model_index.json", "README.md", "proof.json", "unet/config.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_draws_something_else_is_not_called_exported(models, tmp_path, monkeypatch, unproven):
    agreeing = proving._stock

    def disagreeing(request):
        drawn = yield from agreeing(request)
        return Drawn(drawn.latents, drawn.images + 0.01)

    monkeypatch.setattr(proving, "_stock", disagreeing)
    with pytest.raises(Unproven, match="another picture"):
        drain(export(models["sd1"], some_edit(models["sd1"]), tmp_path / "out", shots=SHOTS))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_stock_diffusers_cannot_open_is_reported_with_its_words(models, tmp_path, monkeypatch):
    def broken(model, folder, **options):
        yield from writing.write(model, folder, **options)
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()

    monkeypatch.setattr(adapter, "write", broken)
    with pytest.raises(Unproven, match="could not open the export: .*diffusion_pytorch_model"):
        drain(export(models["sd1"], None, tmp_path / "out", shots=SHOTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_text_towers_always_carry_their_prefix(models, family, tmp_path, unproven):
    """Without it transformers 4 draws random weights after a mere warning."""
    drain(export(models[family], some_edit(models[family]), tmp_path / "out", shots=SHOTS[:1]))
    for tower in ("text_encoder", "text_encoder_2") if family == "xl" else ("text_encoder",):
        names = load_file(tmp_path / "out" / tower / "model.safetensors").keys()
        assert {name.split(".")[0] for name in names} <= {"text_model", "text_projection"}
        assert "text_model.embeddings.token_embedding.weight" in names
    for tokenizer in ("tokenizer", "tokenizer_2") if family == "xl" else ("tokenizer",):
        assert {"vocab.json", "merges.txt"} <= {path.name for path in (tmp_path / "out" / tokenizer).iterdir()}


def test_nothing_in_it_points_to_this_machine(models, tmp_path, unproven):
    drain(export(models["sd2"], None, tmp_path / "out", shots=SHOTS[:1]))
    for path in (tmp_path / "out").rglob("*.json"):
        assert str(tmp_path.parents[1]) not in path.read_text()
        assert "_name_or_path" not in path.read_text()
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None]
    assert index["requires_safety_checker"] is False
    scheduler = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == "v_prediction"


def test_half_precision_and_variant(models, tmp_path, unproven):
    edit = some_edit(models["sd1"])
    drain(export(models["sd1"], edit, tmp_path / "out", dtype="fp16", variant="fp16", shots=SHOTS[:1]))
    stored = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    with edit.applied(models["sd1"].network):
        applied = {name: weight.half() for name, weight in models["sd1"].network.unet.state_dict().items()}
    assert all(torch.equal(stored[name], applied[name]) for name in applied)
    assert "variant='fp16'" in (tmp_path / "out" / "README.md").read_text()
    assert "float16" in (tmp_path / "out" / "README.md").read_text()


def test_the_card_says_what_was_done_and_proven(models, tmp_path, unproven):
    drain(export(models["sd1"], some_edit(models["sd1"]), tmp_path / "out", shots=SHOTS))
    text = (tmp_path / "out" / "README.md").read_text()
    proof = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert f"largest pixel difference was {proof['max_difference']:.3g}" in text
    for piece in ("Van Gogh", "`uce`", "0123abcd", '"push": 1.0', "seed 7", "'van gogh' (seed 2)", cards.STATEMENT):
        assert piece in text
    assert text.startswith('---\nlicense: "unknown"\n')
    assert cards.UNKNOWN in text


def test_a_bundled_model_has_its_own_licence(tmp_path, unproven):
    model = generators.load("pocket-sd", device="cpu")
    assert "CC BY 4.0" in model.licence
    drain(export(model, None, tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith('---\nlicense: "apache-2.0"\n')
    assert "CC BY 4.0" in card
    assert "Copyright (c) Microsoft" in (assets() / "NOTICE").read_text()


def test_the_base_licence_is_carried_over(models, tmp_path, unproven):
    drain(export_pipeline(models["sd1"], None, tmp_path / "first"))
    (tmp_path / "first" / "README.md").write_text("---\nlicense: openrail++\n---\nmine")
    licensed = generators.load(tmp_path / "first", device="cpu")
    assert licensed.licence == "openrail++"
    drain(export(licensed, some_edit(licensed), tmp_path / "second"))
    assert "**Licence.** openrail++" in (tmp_path / "second" / "README.md").read_text()


def test_targets_that_hold_something(models, tmp_path, unproven):
    model, target = models["sd1"], tmp_path / "out"
    target.mkdir()
    drain(export(model, None, target, shots=SHOTS[:1]))  # an empty folder is as good as none
    with pytest.raises(BadInput, match="--force"):
        drain(export(model, None, target))
    (target / "left.txt").write_text("from before")
    drain(export(model, None, target, force=True, shots=SHOTS[:1]))
    assert not (target / "left.txt").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(b"")
    with pytest.raises(BadInput, match="only exports"):
        drain(export(model, None, tmp_path / "photos", force=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file"):
        drain(export(model, None, tmp_path / "file"))
    with pytest.raises(BadInput, match="cannot be made"):
        drain(export(model, None, tmp_path / "file" / "below"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out", "photos"]


def test_a_full_disk_leaves_nothing_behind(models, tmp_path, monkeypatch):
    real = writing.save_file

    def full(tensors, path, metadata):
        if "vae" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(tensors, path, metadata=metadata)

    monkeypatch.setattr(writing, "save_file", full)
    with pytest.raises(BadInput, match="No disk space"):
        drain(export(models["sd1"], None, tmp_path / "out"))
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(BadInput, match=r"needs \d+\.\d MiB"):
        drain(export(models["sd1"], None, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_closing_at_any_step_leaves_model_and_disk_as_they_were(models, tmp_path, unproven, monkeypatch):
    model, edit = models["sd1"], some_edit(models["sd1"])
    monkeypatch.setattr(model, "default_steps", 3)
    before = bits(model.network)
    whole = sum(1 for _ in export(model, edit, tmp_path / "whole", shots=SHOTS[:1]))
    assert whole > 5
    for stop in range(1, whole + 1):
        work = export(model, edit, tmp_path / "out", shots=SHOTS[:1])
        for _ in range(stop):
            next(work)
        work.close()
        assert all(torch.equal(old, new) for old, new in zip(before, model.network.parameters(), strict=True))
        assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_edits_of_another_model_and_odd_options(models, tmp_path):
    with pytest.raises(BadInput, match="another"):
        drain(export(models["sd1"], some_edit(models["sd2"]), tmp_path / "out"))
    with pytest.raises(BadInput, match="fp32, bf16, fp16"):
        drain(export(models["sd1"], None, tmp_path / "out", dtype="int8"))
    with pytest.raises(BadInput, match="strength"):
        drain(export(models["sd1"], None, tmp_path / "out", strength=float("nan")))
    assert list(tmp_path.iterdir()) == []


def test_saving_is_exporting_without_an_edit(models, tmp_path):
    models["xl"].save(tmp_path / "saved")
    again = generators.load(tmp_path / "saved", device="cpu")
    assert again.fingerprint == models["xl"].fingerprint
    assert torch.equal(drain(again.sample(SHOTS, steps=3)), drain(models["xl"].sample(SHOTS, steps=3)))
    with pytest.raises(BadInput, match="already holds"):
        again.save(tmp_path / "saved")  # its own files are mapped into memory; writing over them would change it


def test_cards_of_stacked_edits_and_reports():
    about = {
        "method": "sum", "base": "0123abcd",
        "parents": [
            {"hash": "a", "strength": 1.0, "about": ABOUT},
            {"hash": "b", "strength": 0.5, "about": ABOUT | {"concepts": [{"name": "cat"}], "method": "esd"}},
        ],
    }  # fmt: skip
    report = {
        "scores": {
            "UA": {"value": 0.987654, "n": 20, "low": 0.9, "high": 1.0, "baseline": 0.01, "better": "higher",
                   "probe": "pocket-judge", "note": None},
            "FID": {"value": float("nan"), "n": 0, "low": None, "high": None, "baseline": None, "better": "lower",
                    "probe": None, "note": "too few | images"},
        },
        "excluded": ["Seed_Images"],
    }  # fmt: skip
    text = cards.card(about, report, {"paraphrase": report}, licence="mit", recipe="open it")
    assert "# toy without Van Gogh and cat" in text
    assert "with `esd`, entering at strength 0.5" in text
    assert "| UA | 0.9877 | 0.9 – 1 | 20 | 0.01 | higher | pocket-judge |  |" in text
    assert "| FID | unscored |  | 0 |  | lower |  | too few \\| images |" in text
    assert "Seed_Images" in text
    assert 'license: "mit"' in text
    assert "## Attack: paraphrase" in text
    assert cards.NO_ATTACKS not in text
    assert "open it" in text
    plain = cards.card({"model": "/home/someone/models/mine"}, recipe="")
    assert "mine, unedited" in plain
    assert "someone" not in plain
    assert cards.NO_SCORES in plain
    assert cards.NO_ATTACKS in plain


def test_a_safety_checker_that_is_left_out_is_said(folders, tmp_path, unproven):
    base = shutil.copytree(folders["sd1"], tmp_path / "base")
    patch_json(
        base / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
    )
    model = generators.load(base, device="cpu")
    exported = drain(export_pipeline(model, some_edit(model), tmp_path / "merged"))
    assert exported.left_out == ("safety_checker", "feature_extractor")
    assert cards.UNCHECKED in (tmp_path / "merged" / "README.md").read_text()
    plain = generators.load(folders["sd1"], device="cpu")
    assert drain(export_pipeline(plain, some_edit(plain), tmp_path / "other")).left_out == ()
    assert cards.UNCHECKED not in (tmp_path / "other" / "README.md").read_text()


@pytest.mark.parametrize("variant", ["../../x", "", "a b", "x" * 40])
def test_a_variant_is_a_part_of_file_names(models, tmp_path, variant):
    with pytest.raises(BadInput, match="variant"):
        drain(export(models["sd1"], None, tmp_path / "out", "pipeline", variant=variant))
    assert list(tmp_path.iterdir()) == []


def test_the_proving_process_ends_with_the_one_that_started_it(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    reopen.end_with(os.getppid() + 1)
    assert ended.wait(30)
