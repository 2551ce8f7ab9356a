"""Who opens an export follows from the model's names and shapes: others are promised for published sizes alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from erase.edit import Edit
from generators.export import modelspec, published
from generators.export.format import FORMS, Place, form
from tests.generators.exports import readers
from tests.toys.pipelines import FAMILIES

OTHERS = ("A1111", "Forge", "ComfyUI", "InvokeAI")
ARCHITECTURE = {
    "sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2-512", "xl": "stable-diffusion-xl-v1-base"
}  # fmt: skip


def full_size(family, channels=published.AUTOENCODER, **other):
    """What is asked of a model, with the parameters of a published one, on the meta device."""
    shapes = published._shapes(family) | other
    named = [(name, torch.empty(shape, device="meta")) for name, shape in shapes.items()]
    scheduler = SimpleNamespace(config={"prediction_type": "epsilon"})
    network = SimpleNamespace(named_parameters=lambda: named)
    return SimpleNamespace(
        family=family, network=network, vae_config={"block_out_channels": channels}, scheduler=scheduler
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_only_all_names_and_shapes_make_a_published_model(models, family):
    assert published.is_published(full_size(family))
    assert modelspec.architecture(full_size(family)) == ARCHITECTURE[family]
    table = "text.text_model.embeddings.token_embedding.weight"
    width = published._shapes(family)[table][1]
    assert not published.is_published(full_size(family, **{table: (49409, width)}))  # a learnt word more
    assert not published.is_published(full_size(family, channels=(32, 64)))
    version = {"sd1": "sd_v1", "sd2": "sd_v2", "xl": "sdxl_base_v1-0"}[family]
    weights = {"a": torch.zeros(1)}
    assert modelspec.kohya(full_size(family), weights, 1, "", "x")["ss_base_model_version"] == version
    assert "ss_base_model_version" not in modelspec.kohya(models[family], weights, 1, "", "x")
    assert not published.is_published(models[family])
    assert modelspec.architecture(models[family]) == "unpublished"


def test_an_edit_tells_the_sizes_of_its_model(models):
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert published.may_be_published(Edit({name: torch.zeros(320, 768)}, {}))
    assert published.may_be_published(Edit({name: torch.zeros(320, 1024)}, {}))
    assert not published.may_be_published(Edit({name: torch.zeros(320, 512)}, {}))
    assert not published.may_be_published(Edit({name: torch.zeros(64, 768)}, {}))
    assert not published.may_be_published(readers(models["sd1"]))


@pytest.mark.parametrize("name", [name for name in FORMS if name != "gan"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_programs_are_named_for_published_sizes_alone(name, family):
    told = form(name)
    for known in (True, False):
        place = Place("out.safetensors", "base", "a cat", family, published=known)
        promised = all(f"{program}" in told.openers(known) for program in OTHERS)
        assert promised == (known and name in ("single-file", "kohya-lora"))
        assert "put the file into the folder" in told.recipe(place) or not promised
        assert ("do not open it" in told.recipe(place)) == (not known and name in ("single-file", "kohya-lora"))
