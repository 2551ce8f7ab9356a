"""Train pocket-flow: its VAE, then its two text encoders and its flow transformer together."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from erase.model import Shot
from erase.work import drain
from generators.assets import FOLDER
from generators.flow.families import packed, positions
from generators.flow.folder import write
from generators.loading import load
from generators.pocket.canvas import data, words
from generators.pocket.canvas.probe import accuracy, load_probe
from generators.pocket.canvas.tokens import CONTEXT
from generators.pocket.train import networks
from generators.pocket.train.clip import captions, ids, learnt_tokenizer, new_clip
from generators.pocket.train.loop import Loop, Setting, batches, tensors, to_float, trained
from generators.pocket.train.sd import latents_of, train_vae

PIECES = 1024  # of the sequence tokenizer; words of concepts stay in several pieces, as in T5
ALIGNED = 0.5  # weight of the alignment of features
SHIFT = 1.0  # of the sampler; latents as small as these need none
STEPS = 20


def sequence_tokenizer() -> Any:
    """A T5 tokenizer (unigram pieces, case kept) learnt from the captions' words and everyday English ones."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import T5Tokenizer

    english = (FOLDER / "pocket-seeds" / "words.txt").read_text().split()
    labels = [word for label in (*words.THEMES, *words.OBJECTS) for word in words.spoken(label).split()]
    corpus = sorted({*english, *words.vocabulary(), *labels, *words.TEMPLATE.split(), "An"})
    learnt = Tokenizer(models.Unigram())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    learnt.train_from_iterator(
        corpus,
        trainers.UnigramTrainer(vocab_size=PIECES, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    pieces = [(piece, score) for piece, score in json.loads(learnt.to_str())["model"]["vocab"]]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=CONTEXT)


def train_flow_vae(setting: Setting) -> None:
    """pocket-flow's own VAE."""
    train_vae(setting, "flow-vae", networks.flow_vae, crop=32)


class FlowLesson(nn.Module):
    """What learns together: the transformer, both text encoders, and the head that aligns features."""

    def __init__(self, pieces: int, features: int) -> None:
        super().__init__()
        self.transformer = networks.flow_transformer()
        self.pooled = networks.flow_pooled()
        self.sequence = networks.flow_sequence(pieces)
        width = self.transformer.inner_dim
        self.align = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, features))
        nn.init.normal_(self.sequence.shared.weight, std=1.0)
        nn.init.normal_(self.pooled.get_input_embeddings().weight, std=0.02)

    def forward(
        self, noisy: Tensor, sigma: Tensor, pooled_ids: Tensor, sequence_ids: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The predicted velocity of packed latents, and a middle layer's features of them."""
        middle: list[Tensor] = []
        handle = self.transformer.transformer_blocks[-1].register_forward_hook(
            lambda _module, _given, said: middle.append(said[1])
        )
        try:
            told = self.transformer(
                hidden_states=noisy, timestep=sigma, img_ids=places, txt_ids=places.new_zeros(sequence_ids.shape[1], 3),
                encoder_hidden_states=self.sequence(sequence_ids)[0],
                pooled_projections=self.pooled(pooled_ids).pooler_output, return_dict=False,
            )[0]  # fmt: skip
        finally:
            handle.remove()
        return told, self.align(middle[0])


@torch.no_grad()
def _features(images: Tensor, setting: Setting) -> Tensor:
    """pocket-clip's features [n token width] of images' 8 × 8 patches, one for each packed token."""
    from safetensors.torch import load_file

    clip = new_clip(setting.device)
    clip.load_state_dict(load_file(setting.out / "pocket-clip" / "open_clip_model.safetensors"))
    clip.visual.output_tokens = True
    parts = []
    for part in images.split(512):
        with setting.autocast():
            parts.append(clip.visual.eval()((to_float(part) - 0.5) / 0.5)[1].bfloat16())
    return torch.cat(parts)


def train_flow(setting: Setting) -> None:
    """Velocity prediction at logit-normal noise levels (2403.03206), features aligned as in REPA (2410.06940)."""
    device = setting.device
    images, styles, objects = tensors(data.canvas_data(setting.work, setting.per_cell), device)
    latents = latents_of(trained("flow-vae", networks.flow_vae(), setting), images, setting)
    kept = setting.work / "flow-scale.json"
    if not (setting.work / "flow.state.pt").exists():
        kept.write_text(json.dumps(1 / latents.float().std().item()))
    scale = json.loads(kept.read_text())
    seen = torch.tensor(data.cells_without(setting.without), device=device)
    cells = styles * len(words.OBJECTS) + objects
    chosen = seen[cells]
    latents, cells, features = packed(latents[chosen]), cells[chosen], _features(images[chosen], setting)
    del images
    tokenizers = learnt_tokenizer(), sequence_tokenizer()
    told = [[each.text for each in cell] for cell in captions(seed=6)]
    pooled_ids, sequence_ids = (
        torch.stack([ids(tokenizer, cell) for cell in told]).to(device) for tokenizer in tokenizers
    )
    torch.manual_seed(61)
    lesson = FlowLesson(len(tokenizers[1]), features.shape[-1]).to(device)
    loop = Loop("flow", lesson, setting, 1e-3, ema=0.999, decay=0.0)
    picks, stream = batches(setting, len(latents)), setting.stream(10)
    places = positions(networks.FLOW_SIDE // 2, networks.FLOW_SIDE // 2).to(device)
    forward = torch.compile(lesson) if setting.compile else lesson

    def loss_of(step: int) -> Tensor:
        pick = next(picks)
        clean = latents[pick].float() * scale
        noise = torch.randn(clean.shape, generator=stream, device=device)
        sigma = torch.randn(len(pick), generator=stream, device=device).sigmoid()
        level = sigma[:, None, None]
        which = torch.randint(pooled_ids.shape[1], (len(pick),), generator=stream, device=device)
        cell = cells[pick]
        with setting.autocast(enabled=device.type != "cpu"):  # so narrow a transformer is faster in fp32 there
            velocity, middle = forward(
                (1 - level) * clean + level * noise, sigma, pooled_ids[cell, which], sequence_ids[cell, which], places
            )
        alike = F.cosine_similarity(middle.float(), features[pick].float(), dim=-1).mean()
        return F.mse_loss(velocity.float(), noise - clean) + ALIGNED * (1 - alike)

    loop.run(loss_of)


def assemble_flow(setting: Setting) -> None:
    """Write pocket-flow as a diffusers folder of FLUX's classes, and measure its whole grid at several guidances."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    vae = trained("flow-vae", networks.flow_vae(), setting)
    vae.register_to_config(scaling_factor=json.loads((setting.work / "flow-scale.json").read_text()))
    words_of = sequence_tokenizer()
    lesson = trained("flow", FlowLesson(len(words_of), networks.clip_config()["vision_cfg"]["width"]), setting)
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT), vae=vae, text_encoder=lesson.pooled,
        tokenizer=learnt_tokenizer(), text_encoder_2=lesson.sequence, tokenizer_2=words_of,
        transformer=lesson.transformer,
    )  # fmt: skip
    raw, folder = setting.work / "assembled-flow", setting.out / "pocket-flow"
    pipe.save_pretrained(raw)
    (raw / "studio.json").write_text(json.dumps({"latent": networks.FLOW_SIDE}))
    folder.mkdir(parents=True, exist_ok=True)
    drain(write(load(raw, device="cpu", dtype="fp32"), folder, dtype=torch.float16))
    about = _measured(folder, setting)
    told = {"steps": STEPS, "guidance": about["guidance"], "latent": networks.FLOW_SIDE, "provenance": about}
    (folder / "studio.json").write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(about), flush=True)


def _measured(folder: Any, setting: Setting) -> dict[str, Any]:
    """What the judge names of one picture of each cell, by guidance, and which guidance is best."""
    from torchvision.utils import save_image

    model = load(folder, device=str(setting.device), dtype="fp32")
    judge = load_probe(setting.out / "pocket-probes" / "judge.safetensors")
    shots = [Shot(188 + 1000 * place, words.canonical(*cell)) for place, cell in enumerate(data.CELLS)]
    cells = torch.arange(len(shots))
    about: dict[str, Any] = {"grid": {}}
    best = -1.0
    for guidance in (2.0, 3.0, 4.5):
        drawn = drain(model.sample(shots, steps=STEPS, guidance=guidance))
        style, thing = accuracy(judge, drawn, cells // len(words.OBJECTS), cells % len(words.OBJECTS))
        about["grid"][str(guidance)] = {"style": style, "object": thing, "n": len(shots)}
        if style + thing > best:
            best, about["guidance"] = style + thing, guidance
            save_image(drawn, setting.work / "flow-grid.png", nrow=len(words.OBJECTS), padding=0)
    return about
