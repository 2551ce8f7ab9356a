"""Every export format of every family: stock libraries draw the applied edit from it, and refusals come first."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

import generators
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from generators.checkpoints import text_encoder_edit
from generators.export import staging, verify
from generators.export.card import STATEMENT
from generators.export.export import export
from generators.export.format import FORMS, Asked, form
from generators.export.formats.diffusers_folder import write
from generators.export.verify import Unproven
from tests.generators import exports
from tests.generators.exports import ABOUT, closed_form, layers, random_edit, readers, text, text_layers
from tests.toys.compare import same_bits, weights
from tests.toys.pipelines import FAMILIES, toy_folder

SHOTS = [Shot(1, "a cat in van gogh style")]
STEPS = 3
EXACT = ("pipeline", "single-file", "plugin", "edit")
OF_DIFFUSION = tuple(name for name in FORMS if name != "gan")  # tests/gan exports those
CARRIED = [
    *itertools.product(("pipeline", "single-file", "edit", "kohya-lora", "diffusers-lora"), (readers, layers)),
    *itertools.product(EXACT, (text,)),
    *itertools.product(("kohya-lora", "diffusers-lora", "plugin"), (text_layers,)),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch, models):
    """Few steps, and stock libraries in this process."""
    monkeypatch.setattr(verify, "_stock", exports.here)
    for model in models.values():
        monkeypatch.setattr(model, "default_steps", STEPS)


def drawn(model, edit, strength=1.0):
    with edit.applied(model.network, strength):
        return drain(model.sample(SHOTS, steps=STEPS))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "kind"), CARRIED, ids=lambda value: getattr(value, "__name__", value))
def test_stock_libraries_draw_the_worn_edit(models, family, name, kind, tmp_path):
    model, edit = models[family], kind(models[family])
    before = weights(model.network)
    exported = drain(export(model, edit, tmp_path / "out", name, shots=SHOTS))
    assert exported.proof.effect > 0.01  # the edit does something, so the comparison could fail
    if name in EXACT:
        assert exported.max_difference <= 1e-5
    else:
        assert exported.proof.stored_difference <= 1e-5
        assert exported.facts["error"] <= 0.01
    assert same_bits(before, weights(model.network))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    card = (tmp_path / "out" / "README.md").read_text()
    for piece in (STATEMENT, "Van Gogh", "`uce`", "seed 7", "0123abcd", f"Format `{name}`", "## How to load it"):
        assert piece in card


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_clean_process_opens_all_of_them(models, family, tmp_path):
    """One interpreter without this project for all formats, because starting it takes longest."""
    model = models[family]
    kinds = {"plugin": text, "kohya-lora": layers, "diffusers-lora": layers}
    for name in OF_DIFFUSION:
        drain(export(model, kinds.get(name, readers)(model), tmp_path / name, name, shots=SHOTS))
    drain(write(model, tmp_path / "base"))
    asked = {
        "base": str(tmp_path / "base"), "variant": None, "dtype": "float32", "device": "cpu", "steps": STEPS,
        "prompts": [SHOTS[0].prompt], "seeds": [SHOTS[0].seed],
        "call": model.stock_call(model.default_guidance), "absent": [],
    }  # fmt: skip
    requests = {
        name: asked | {"form": name, "path": str(tmp_path / name), "file": form(name).file} for name in OF_DIFFUSION
    }
    driver = (
        "import json, runpy, sys\nfrom safetensors.torch import save_file\n"
        f"stock = runpy.run_path({str(verify.STOCK)!r})\n"
        f"requests = json.loads({json.dumps(requests)!r})\n"
        "images = {name: stock['draw'](asked)['images'] for name, asked in requests.items()}\n"
        "assert not {'erase', 'generators', 'app', 'benchmarks'} & {name.split('.')[0] for name in sys.modules}\n"
        f"save_file(images, {str(tmp_path / 'images.safetensors')!r})\n"
    )
    subprocess.run([sys.executable, "-I", "-c", driver], check=True, capture_output=True, cwd=tmp_path)
    images = load_file(tmp_path / "images.safetensors")
    for name in OF_DIFFUSION:
        file = form(name).file
        edit = (
            text_encoder_edit.read(tmp_path / name / file)
            if form(name).adds and file
            else kinds.get(name, readers)(model)
        )
        assert (images[name] - drawn(model, edit)).abs().max() <= 1e-4, name


@pytest.mark.parametrize("name", OF_DIFFUSION)
def test_strength_half_is_wearing_half(models, name, tmp_path):
    model = models["sd1"]
    edit = (text_layers if name == "plugin" else layers)(model)
    drain(export(model, edit, tmp_path / "out", name, strength=0.5, shots=SHOTS))
    half = drawn(model, edit, 0.5)
    assert (half - drawn(model, edit)).abs().max() > 0.01
    if name in ("pipeline", "single-file"):
        path = tmp_path / "out" if name == "pipeline" else tmp_path / "out" / "model.safetensors"
        again = drain(generators.load(path, device="cpu").sample(SHOTS, steps=STEPS))
        assert (again - half).abs().max() <= 1e-5
    elif name != "plugin":  # which its proof has compared
        back = text_encoder_edit.read(tmp_path / "out" / str(form(name).file))
        for parameter, delta in edit.deltas.items():
            assert (back.deltas[parameter] - delta / 2).norm() <= 0.011 * delta.norm() / 2
        assert back.about["concepts"] == ABOUT["concepts"]
        assert back.about["parents"][0]["strength"] == 0.5


@pytest.mark.parametrize("name", ("kohya-lora", "diffusers-lora", "edit"))
def test_half_precision_and_compression(models, name, tmp_path):
    model, edit = models["xl"], closed_form(models["xl"])
    exported = drain(export(model, edit, tmp_path / "half", name, dtype="fp16", error=0.02, shots=SHOTS))
    tensors = load_file(tmp_path / "half" / str(form(name).file))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    back = text_encoder_edit.read(tmp_path / "half" / str(form(name).file))
    missing = sum(float((back.deltas[n] - d).square().sum()) for n, d in edit.deltas.items())
    whole = sum(float(d.square().sum()) for d in edit.deltas.values())
    assert (missing / whole) ** 0.5 <= 0.02
    assert exported.facts["error"] == pytest.approx((missing / whole) ** 0.5, rel=1e-3)
    assert exported.facts["error"] > 1e-5  # fp16 rounds
    assert exported.facts["ranks"] == [4, 4]
    low = drain(export(model, edit, tmp_path / "low", name, rank=6, shots=SHOTS))
    assert low.facts["ranks"] == [6, 6]
    assert low.facts["error"] < 1e-5


def test_a_text_encoder_fits_another_unet(models, tmp_path):
    """Of the same family, but with other weights: the erased words are what it reads."""
    drain(export(models["sd1"], text(models["sd1"]), tmp_path / "plugin", "plugin", shots=SHOTS))
    other = generators.load(toy_folder(tmp_path / "other", "sd1", seed=1), device="cpu")
    drain(write(other, tmp_path / "base"))
    pipeline = StableDiffusionPipeline.from_pretrained(
        tmp_path / "base", text_encoder=CLIPTextModel.from_pretrained(tmp_path / "plugin"), local_files_only=True
    )
    prompt = SHOTS[0].prompt
    with text(models["sd1"]).applied(models["sd1"].network):
        codes = models["sd1"].encode([prompt]).tokens
    assert torch.allclose(pipeline.encode_prompt(prompt, "cpu", 1, False)[0], codes, atol=1e-6)
    plain = drain(other.sample(SHOTS, steps=STEPS))
    image = pipeline(
        prompt, num_inference_steps=STEPS, generator=torch.Generator().manual_seed(SHOTS[0].seed), output_type="pt"
    ).images
    assert (image - plain).abs().max() > 0.01


def test_a_real_sized_edit_of_keys_and_values(tmp_path):
    """SD 1.x: 32 matrices; closed forms change them by W·M with M of the rank of what is erased."""
    randomness = torch.Generator().manual_seed(0)
    change = torch.randn(768, 4, generator=randomness) @ torch.randn(4, 768, generator=randomness)
    rows = [320] * 5 + [640] * 5 + [1280] * 6
    deltas = {
        f"unet.{place}.attn2.{which}.weight": torch.randn(out, 768, generator=randomness) @ change * 1e-3
        for place, out in enumerate(rows)
        for which in ("to_k", "to_v")
    }
    assert sum(delta.numel() for delta in deltas.values()) == pytest.approx(19.17e6, rel=1e-3)
    exact, edit = form("edit"), Edit(deltas, ABOUT)
    drain(exact.write(None, edit, tmp_path, Asked(dtype=torch.float16)))
    assert (tmp_path / "edit.safetensors").stat().st_size <= 40e6
    facts = drain(exact.write(None, edit, tmp_path, Asked(dtype=torch.float16, error=0.01)))
    assert (tmp_path / "edit.safetensors").stat().st_size <= 5e6
    assert facts["ranks"] == [4, 4]
    assert facts["error"] <= 0.01
    back = Edit.load(tmp_path / "edit.safetensors")
    assert all((back.deltas[name] - delta).norm() <= 0.01 * delta.norm() for name, delta in deltas.items())


def test_what_a_format_cannot_carry_is_said_before_writing(models, tmp_path):
    model = models["sd1"]

    def refused(edit, name, match, **options):
        with pytest.raises(BadInput, match=match):
            drain(export(model, edit, tmp_path / "out", name, shots=SHOTS, **options))
        assert list(tmp_path.iterdir()) == []

    refused(text(model), "kohya-lora", r"no biases, norms or embeddings.*\d\d\.\d\d% of it.*single-file, plugin\.$")
    refused(text(model), "diffusers-lora", "no biases, norms or embeddings")
    biased = random_edit(model, lambda name, weight: "attn2.to_out.0" in name, 0.3)
    refused(biased, "kohya-lora", r"changes 4 of them.*single-file, or leave them out with --error 0\.\d+\.$")
    refused(readers(model), "plugin", "cannot hold the U-Net, and this edit changes 8")
    refused(readers(model), "gan", "is a diffusion model; gan is for generators")
    refused(Edit({"synthesis.b4.const": torch.ones(2)}, {}), "pipeline", "changes a GAN")
    for name in ("kohya-lora", "diffusers-lora", "plugin", "edit"):
        refused(None, name, "no change|has none")
    refused(readers(model), "single-file", "has no --error", error=0.1)
    refused(readers(model), "edit", "one of --error, --rank and --size", error=0.1, rank=3)
    refused(readers(model), "edit", "one of --error, --rank and --size", size=1, rank=3)
    refused(readers(model), "edit", r"0.001 MB are too few.*of rank 1 it takes 0\.0\d+ MB", size=0.001)
    refused(readers(model), "edit", "in megabytes", size=-1)
    refused(readers(model), "edit", "share of the edit between 0 and 1", error=2.0)
    refused(readers(model), "edit", "at least 1", rank=0)
    refused(readers(model), "kohya", "Did you mean 'kohya-lora'", force=True)


def test_what_does_not_fit_may_be_left_out_knowingly(models, tmp_path):
    """The share of what is left out counts as error, and the file is honest about it."""
    model, whole = models["sd1"], layers(models["sd1"])
    bias = next(name for name, weight in model.network.named_parameters() if name.endswith("to_out.0.bias"))
    edit = Edit({**whole.deltas, bias: torch.full_like(dict(model.network.named_parameters())[bias], 0.1)}, ABOUT)
    exported = drain(export(model, edit, tmp_path / "out", "kohya-lora", error=0.1, shots=SHOTS))
    share = float(edit.deltas[bias].norm() / sum(d.square().sum() for d in edit.deltas.values()) ** 0.5)
    assert exported.facts["left_out"] == pytest.approx(share, rel=1e-4)
    assert share < exported.facts["error"] <= 0.1
    assert "left out" in (tmp_path / "out" / "README.md").read_text()


def test_one_file_and_its_card(models, tmp_path):
    model, target = models["sd1"], tmp_path / "new" / "erased.safetensors"
    exported = drain(export(model, readers(model), target, "kohya-lora", shots=SHOTS))
    assert exported.files == ("erased.safetensors",)
    assert exported.bytes == target.stat().st_size
    assert sorted(path.name for path in target.parent.iterdir()) == ["erased.md", "erased.safetensors"]
    assert "erased.safetensors" in target.with_suffix(".md").read_text()
    with pytest.raises(BadInput, match="already there.*--force"):
        drain(export(model, readers(model), target, "edit", shots=SHOTS))
    drain(export(model, readers(model), target, "edit", force=True, shots=SHOTS))
    assert "Format `edit`" in target.with_suffix(".md").read_text()
    with pytest.raises(BadInput, match="not written as .safetensors; give a folder"):
        drain(export(model, None, tmp_path / "out.safetensors", "pipeline", shots=SHOTS))
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        drain(export(model, readers(model), tmp_path / "taken.safetensors", "edit", shots=SHOTS))


def test_a_lora_is_called_as_its_file(models, tmp_path):
    """A1111 lists LoRAs by ss_output_name and finds neither of two that share one."""
    model = models["sd1"]
    for target in ("first.safetensors", "second.safetensors", "third"):
        drain(export(model, readers(model), tmp_path / target, "kohya-lora", shots=SHOTS))
    files = ("first.safetensors", "second.safetensors", "third/lora.safetensors")
    names = [safe_open(tmp_path / file, "pt").metadata()["ss_output_name"] for file in files]
    assert names == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("name", "target", "way"),
    [
        ("edit", "model.ckpt", "a name ending in .safetensors or a folder"),
        ("single-file", "model.txt", "a name ending in .safetensors or a folder"),
        ("pipeline", "model.zip", "give a folder"),
    ],
)
def test_a_name_of_another_kind_of_file_is_refused(models, tmp_path, name, target, way):
    with pytest.raises(BadInput, match=rf"{name} is not written as \.\w+; .*{way}"):
        drain(export(models["sd1"], readers(models["sd1"]), tmp_path / target, name, shots=SHOTS))
    assert not (tmp_path / target).exists()
    drain(export(models["sd1"], readers(models["sd1"]), tmp_path / "sd-1.5", name, shots=SHOTS))
    assert (tmp_path / "sd-1.5").is_dir()


@pytest.mark.parametrize("target", ("out", "out.safetensors"))
@pytest.mark.parametrize("name", ("single-file", "kohya-lora", "edit"))
def test_stopping_at_any_step_leaves_nothing(models, name, target, tmp_path):
    model, edit = models["sd1"], readers(models["sd1"])
    before, whole = weights(model.network), len(list(steps(model, edit, tmp_path / "whole", name)))
    assert whole > 5
    for stop in range(1, whole + 1):
        work = export(model, edit, tmp_path / target, name, shots=SHOTS)
        for _ in range(stop):
            next(work)
        work.close()
        assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert same_bits(before, weights(model.network))


def steps(model, edit, out, name):
    yield from export(model, edit, out, name, shots=SHOTS)


@pytest.mark.parametrize("at", (1, 2))
def test_killed_between_the_last_moves(models, at, tmp_path, monkeypatch):
    """The card moves first: a card without a file looks like nothing, a file without its proof would."""
    moves = []

    def killed(source, target):
        moves.append(target)
        if len(moves) == at:
            raise KeyboardInterrupt
        real(source, target)

    real = staging.os.replace
    monkeypatch.setattr(staging.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        drain(export(models["sd1"], readers(models["sd1"]), tmp_path / "out.safetensors", "single-file", shots=SHOTS))
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("text_share", "match"), [(0.0, "another picture than the applied edit"), (0.995, "than what the file holds")]
)
def test_a_file_that_stock_libraries_read_otherwise_is_not_kept(models, tmp_path, monkeypatch, text_share, match):
    """A text encoder that is dropped on the way changes the picture; one that is a little off is noticed too."""

    def misreading(request):
        path = f"{request['path']}/{request['file']}"
        tensors = load_file(path)
        for name in tensors:
            if "lora_te" in name and "lora_up" in name:
                tensors[name] *= text_share
        save_file(tensors, path)
        return (yield from exports.here(request))

    monkeypatch.setattr(verify, "_stock", misreading)
    with pytest.raises(Unproven, match=match):
        drain(export(models["sd1"], layers(models["sd1"]), tmp_path / "out", "kohya-lora", shots=SHOTS))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_single_files_open_here_without_a_config(models, family, tmp_path):
    """Words, configs and defaults ride in the header."""
    model, edit = models[family], readers(models[family])
    drain(export(model, edit, tmp_path / "one.safetensors", "single-file", shots=SHOTS))
    opened = generators.load(tmp_path / "one.safetensors", device="cpu")
    assert (opened.family, opened.default_steps, opened.default_guidance) == (family, STEPS, model.default_guidance)
    assert (drain(opened.sample(SHOTS, steps=STEPS)) - drawn(model, edit)).abs().max() <= 1e-5
    with safe_open(tmp_path / "one.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["modelspec.prediction_type"] == ("v" if family == "sd2" else "epsilon")
    assert header["modelspec.architecture"] == "unpublished"  # no program should take a toy for its full-size relative
    assert header["modelspec.resolution"] == "16x16"
