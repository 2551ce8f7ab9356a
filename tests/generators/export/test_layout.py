"""Key sets and shapes of full-size single files: SD 1.5, SD 2.1 and SDXL, built from their configs without memory.

Four witnesses: the numbers of tensors in the published files, the lists in `published`, open_clip's own text towers,
and diffusers' converters, which must find every tensor of the model in the names.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from open_clip.transformer import TextTransformer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from generators.checkpoints.single_file import TOWERS, UNET, VAE
from generators.export import low_rank
from generators.export.compvis_names import clip
from generators.export.formats import kohya_lora
from generators.export.formats.single_file import layout
from tests.generators.checkpoints.test_single_file import SD1, SD2, XL

UNETS = {"sd1": SD1, "sd2": SD2, "xl": XL | {"addition_time_embed_dim": 256}}
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
# Width, layers, projection: OpenAI's ViT-L/14, OpenCLIP's ViT-H/14 without its last layer, OpenCLIP's ViT-bigG/14.
L14, H14, BIG_G = (768, 12, None), (1024, 23, None), (1280, 32, 1280)
TEXTS = {"sd1": (L14,), "sd2": (H14,), "xl": (L14, BIG_G)}
# Tensors in v1-5-pruned-emaonly, v2-1_768 and sd_xl_base_1.0, without what is no weight of a network (schedules,
# position numbers, logit_scale) and SD 2's unused text_projection.
PUBLISHED = {"sd1": (686, 248, (196,)), "sd2": (686, 248, (292,)), "xl": (1680, 248, (196, 389))}


LISTS = Path(__file__).with_name("published")


def text(width: int, layers: int, projection: int | None) -> torch.nn.Module:
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, max_position_embeddings=77, projection_dim=projection or width,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


@pytest.fixture(scope="module", params=list(UNETS))
def full(request):
    """A family's full-size networks on the meta device and the layout of their single file."""
    family = request.param
    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNETS[family]), AutoencoderKL(**AUTOENCODER)
        texts = [text(*sizes) for sizes in TEXTS[family]]
        states = [network.state_dict() for network in (unet, vae, *texts)]
        named = layout(family, (unet.config, states[0]), (vae.config, states[1]), states[2:])
    return SimpleNamespace(family=family, unet=unet, vae=vae, texts=texts, states=states, named=named)


def under(full, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in full.named.items() if name.startswith(prefix)}


def shapes(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_as_many_tensors_as_were_published(full):
    prefixes = (UNET, VAE, *(prefix for prefix, _ in TOWERS[full.family]))
    counted = [len(under(full, prefix)) for prefix in prefixes]
    unet, vae, texts = PUBLISHED[full.family]
    assert counted == [unet, vae, *texts]
    assert sum(counted) == len(full.named)


def listed(name):
    """A list of `published`: what stands left of the space to what stands right of it."""
    return dict(line.split() for line in (LISTS / f"{name}.txt").read_text().splitlines())


def test_names_and_shapes_are_those_diffusers_scripts_write(full):
    """SD 2 has one layer more, the unused last one of the published files."""
    made = {name: "x".join(map(str, tensor.shape)) for name, tensor in full.named.items()}
    unused = {name for name in made if full.family == "sd2" and ".resblocks.23." in name}
    assert len(unused) == (12 if full.family == "sd2" else 0)
    assert {name: shape for name, shape in made.items() if name not in unused} == listed(full.family)


def test_lora_names_lead_a1111_comfyui_and_invokeai_to_their_layers(full):
    """Each name that is written stands in the list, beside the layer that holds this very weight in a single file."""
    model: Any = SimpleNamespace(family=full.family, network=SimpleNamespace(unet=full.unet))
    holders = {id(tensor): name.removesuffix(".weight") for name, tensor in full.named.items()}
    towers = {"unet": full.states[0], "text": clip(full.states[2]), "text_2": clip(full.states[-1])}
    wanted = {}
    for tower, state in towers.items() if full.family == "xl" else list(towers.items())[:2]:
        for name, tensor in state.items():
            if low_rank.rides(f"{tower}.{name}", tensor):
                module = kohya_lora.module_name(f"{tower}.{name}", model)
                wanted[module] = holders.get(id(tensor)) or joined(name, state, holders)
    assert wanted == listed(f"{full.family}-lora")


def joined(name, state, holders):
    """OpenCLIP's one layer for q, k and v, which stands beside their output's."""
    out = re.sub("[qkv]_proj", "out_proj", name)
    return holders[id(state[out])].replace(".out_proj", f"#{name.split('.')[-2]}")


def test_diffusers_converters_find_every_tensor(full):
    unet = convert_ldm_unet_checkpoint(dict(full.named), full.unet.config)
    assert shapes(unet) == shapes(full.unet.state_dict())
    vae = convert_ldm_vae_checkpoint(dict(full.named), full.vae.config)
    assert shapes(vae) == shapes(full.vae.state_dict())
    for (prefix, open_clip), tower in zip(TOWERS[full.family], full.texts, strict=True):
        named = {name: tensor for name, tensor in full.named.items() if name.startswith(prefix)}
        found = convert_open_clip_checkpoint(tower, named, prefix) if open_clip else convert_ldm_clip_checkpoint(named)
        assert shapes(clip(found)) == shapes(clip(tower.state_dict()))


def test_open_clip_names_its_own_towers_so(full):
    for (prefix, open_clip), (width, layers, projection) in zip(TOWERS[full.family], TEXTS[full.family], strict=True):
        if open_clip:
            with torch.device("meta"):
                theirs = TextTransformer(
                    context_length=77, vocab_size=49408, width=width, heads=width // 64,
                    layers=layers + (projection is None), output_dim=projection or width,
                ).state_dict()  # fmt: skip
            unused = set() if projection else {"text_projection"}
            wanted = {name: shape for name, shape in shapes(theirs).items() if name not in unused}
            assert shapes(under(full, prefix)) == wanted


def test_names_and_shapes_known_from_the_files(full):
    """What loaders tell the families by, and the two places where writers go wrong."""
    known = {
        "sd1": {
            "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
            "model.diffusion_model.output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
            "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
            "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (77, 768),
        },
        "sd2": {
            "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
            "model.diffusion_model.input_blocks.1.1.proj_in.weight": (320, 320),
            "cond_stage_model.model.transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
        },
        "xl": {
            "model.diffusion_model.input_blocks.8.1.transformer_blocks.9.attn2.to_v.weight": (1280, 2048),
            "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
            "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
            "conditioner.embedders.1.model.text_projection": (1280, 1280),
        },
    }[full.family] | {
        "first_stage_model.encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        "first_stage_model.decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
    }
    assert {name: tuple(full.named[name].shape) for name in known} == known


def test_a_lora_of_all_attention_has_as_many_layers_as_sd_scripts_makes(full):
    """Their log says: 192 modules of the U-Net for SD 1, 722 for SDXL; 72 of ViT-L/14."""
    weights = {name: tensor for name, tensor in full.unet.state_dict().items() if ".attentions." in name}
    found = [name for name, tensor in weights.items() if low_rank.rides(f"unet.{name}", tensor)]
    assert len(found) == {"sd1": 192, "sd2": 192, "xl": 722}[full.family]
    tower = clip(full.texts[0].state_dict())
    riding = [name for name, tensor in tower.items() if low_rank.rides(f"text.{name}", tensor)]
    assert len(riding) == 6 * TEXTS[full.family][0][1]
