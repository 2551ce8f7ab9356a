"""Train pocket-clip: first its text tower, against the labels themselves, then its image tower against the words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generators.pocket.canvas import data, words
from generators.pocket.canvas.tokens import CONTEXT, FOLDER
from generators.pocket.faces import draw
from generators.pocket.train import networks
from generators.pocket.train.loop import Loop, Setting, jostled, recoloured, tensors, to_float, trained, turned

CAPTIONS_PER_CELL = 64


def learnt_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(FOLDER / "pocket-sd" / "tokenizer"))


def ids(tokenizer: Any, texts: list[str]) -> Tensor:
    return tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt").input_ids


def captions(seed: int = 5) -> list[list[words.Caption]]:
    """Sample captions of each cell, in the order of `data.CELLS`."""
    rng = np.random.default_rng(seed)
    return [[words.caption(style, thing, rng) for _ in range(CAPTIONS_PER_CELL)] for style, thing in data.CELLS]


@dataclass(frozen=True)
class Captioned:
    """Token ids of captions, canvas [cell caption token] and faces [text token], and what each tells."""

    ids: Tensor
    told: Tensor
    face_ids: Tensor
    face_text: Tensor  # [face 4] index into face_ids


def _captioned(face_labels: np.ndarray, device: torch.device) -> Captioned:
    tokenizer = learnt_tokenizer()
    per_cell = captions()
    canvas_ids = torch.stack([ids(tokenizer, [c.text for c in cell]) for cell in per_cell])
    told = torch.tensor([[(c.style, c.object) for c in cell] for cell in per_cell])
    rng = np.random.default_rng(9)
    rows = [
        [draw.face_caption(dict(zip(draw.ATTRIBUTES, map(bool, row), strict=True)), rng) or "a face" for _ in range(4)]
        for row in face_labels
    ]
    texts = sorted({text for row in rows for text in row})
    index = {text: i for i, text in enumerate(texts)}
    face_text = torch.tensor([[index[text] for text in row] for row in rows])
    return Captioned(canvas_ids.to(device), told.to(device), ids(tokenizer, texts).to(device), face_text.to(device))


def _agreement(logits: Tensor, match: Tensor) -> Tensor:
    """Symmetric contrastive loss with several right answers a row; rows and columns without any do not count."""
    rows = -(F.log_softmax(logits, 1) * match).sum(1) / match.sum(1).clamp(min=1)
    columns = -(F.log_softmax(logits, 0) * match).sum(0) / match.sum(0).clamp(min=1)
    return (rows.mean() + columns.mean()) / 2


def _says(text: Captioned, cells: Tensor, which: Tensor, other: Tensor) -> Tensor:
    """[caption cell] whether each caption says nothing false of each of the `other` cells."""
    count = len(words.OBJECTS)
    told = text.told[cells, which]
    same_style = (cells[:, None] // count == other[None] // count) | ~told[:, None, 0]
    same_object = (cells[:, None] % count == other[None] % count) | ~told[:, None, 1]
    return (same_style & same_object & told.any(1, keepdim=True)).float()


def new_clip(device: torch.device) -> Any:
    import open_clip

    config = networks.clip_config()
    text = {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}
    return open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text).to(device)


class TextLesson(nn.Module):
    """A CLIP whose pictures are still names: style, object and face labels embedded in its space."""

    def __init__(self, clip: nn.Module, width: int = 192) -> None:
        super().__init__()
        self.clip = clip
        self.style, self.object = nn.Embedding(len(words.THEMES), width), nn.Embedding(len(words.OBJECTS), width)
        self.face = nn.Sequential(nn.Linear(len(draw.ATTRIBUTES), width), nn.GELU(), nn.Linear(width, width))
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def labels(self, styles: Tensor, objects: Tensor, face_labels: Tensor) -> Tensor:
        known = torch.cat([self.style(styles) + self.object(objects), self.face(face_labels.float() * 2 - 1)])
        return F.normalize(known + self.mix(known), dim=1)


def train_text(setting: Setting) -> None:
    """The text tower first, against the labels themselves: minutes instead of hours, and pocket-sd may start."""
    device = setting.device
    _, face_labels = data.face_data(setting.work, setting.per_cell * 50)
    text = _captioned(face_labels, device)
    labels = torch.from_numpy(face_labels).to(device)
    torch.manual_seed(31)
    lesson = TextLesson(new_clip(device)).to(device)
    lesson.clip.visual.requires_grad_(False)
    loop = Loop("text", lesson, setting, 1e-3, decay=0.05)
    stream = setting.stream(4)
    everything = torch.arange(len(data.CELLS), device=device)

    def loss_of(step: int) -> Tensor:
        cells = torch.randint(len(data.CELLS), (setting.batch,), generator=stream, device=device)
        which = torch.randint(CAPTIONS_PER_CELL, (setting.batch,), generator=stream, device=device)
        look = torch.randint(len(labels), (setting.batch // 3,), generator=stream, device=device)
        said_of = text.face_text[look, torch.randint(4, (len(look),), generator=stream, device=device)]
        match = torch.block_diag(_says(text, cells, which, everything), (said_of[:, None] == said_of[None]).float())
        with setting.autocast():
            said = lesson.clip.encode_text(torch.cat([text.ids[cells, which], text.face_ids[said_of]]), normalize=True)
        count = len(words.OBJECTS)
        known = lesson.labels(everything // count, everything % count, labels[look])
        return _agreement(lesson.clip.logit_scale.exp().clamp(max=60) * said.float() @ known.T, match)

    loop.run(loss_of)


def train_clip(setting: Setting) -> None:
    """pocket-clip's image tower against its finished text tower (locked, as in LiT 2111.07991), over both worlds."""
    device = setting.device
    images, styles, objects = tensors(data.canvas_data(setting.work, setting.per_cell), device)
    face_images, face_labels = data.face_data(setting.work, setting.per_cell * 50)
    face_images = torch.from_numpy(face_images).to(device)
    text = _captioned(face_labels, device)
    torch.manual_seed(32)
    clip = trained("text", TextLesson(new_clip(device)), setting, ema=False).clip
    with torch.no_grad():
        canvas_said = torch.stack([clip.encode_text(cell, normalize=True).float() for cell in text.ids])
        faces_said = torch.cat([clip.encode_text(part, normalize=True).float() for part in text.face_ids.split(1000)])
    clip.visual.requires_grad_(True)
    loop = Loop("clip", clip.visual.train(), setting, 1e-3, decay=0.1)
    stream = setting.stream(5)
    cell_of = styles * len(words.OBJECTS) + objects
    # A recoloured picture has lost its style: only captions that tell none are true of it.
    styleless = text.told[..., 1] & ~text.told[..., 0]
    bare = styleless.float() + 1e-9

    def loss_of(step: int) -> Tensor:
        pick = torch.randint(len(images), (setting.batch,), generator=stream, device=device)
        look = torch.randint(len(face_images), (setting.batch // 4,), generator=stream, device=device)
        which = torch.randint(CAPTIONS_PER_CELL, (setting.batch,), generator=stream, device=device)
        said_of = text.face_text[look, torch.randint(4, (len(look),), generator=stream, device=device)]
        true = setting.batch // 2
        which[true:] = torch.multinomial(bare[cell_of[pick[true:]]], 1, generator=stream)[:, 0]
        says = _says(text, cell_of[pick], which, cell_of[pick])
        says[:, true:] *= styleless[cell_of[pick], which][:, None]
        match = torch.block_diag(says, (said_of[:, None] == said_of[None]).float()).T
        drawn = torch.cat([recoloured(to_float(images[pick]), stream), to_float(face_images[look])])
        shown = jostled(turned(drawn, stream), stream)
        with setting.autocast():
            seen = F.normalize(clip.visual((shown - 0.5) / 0.5).float(), dim=1)
        said = torch.cat([canvas_said[cell_of[pick], which], faces_said[said_of]])
        return _agreement(clip.logit_scale.exp().clamp(max=60) * seen @ said.T, match)

    loop.run(loss_of)
    scores = _zero_shot(clip.eval(), learnt_tokenizer(), setting)
    _save_clip(clip, setting, {"held_out": scores, "steps": loop.step, "version": "2"})
    print("clip zero-shot on held-out renders", json.dumps(scores), flush=True)


def _save_clip(clip: Any, setting: Setting, about: dict[str, Any]) -> None:
    """pocket-clip as a folder that open_clip loads by its `local-dir:` name."""
    from safetensors.torch import save_file

    out = setting.out / "pocket-clip"
    out.mkdir(parents=True, exist_ok=True)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (out / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": networks.clip_config(), "preprocess_cfg": preprocess}, indent=1) + "\n"
    )
    save_file(
        {k: v.half().contiguous().cpu() for k, v in clip.state_dict().items()},
        out / "open_clip_model.safetensors",
        {"about": json.dumps(about)},
    )
    learnt_tokenizer().save_pretrained(str(out))


@torch.no_grad()
def _zero_shot(clip: Any, tokenizer: Any, setting: Setting) -> dict[str, float]:
    """Accuracy of naming style, object and face attributes of held-out renders from words alone."""
    device = setting.device

    def directions(texts: list[str]) -> Tensor:
        return clip.encode_text(ids(tokenizer, texts).to(device), normalize=True).float()

    def looked(images: np.ndarray) -> Tensor:
        parts = torch.from_numpy(images).to(device).split(500)
        return torch.cat([clip.encode_image((to_float(part) - 0.5) / 0.5, normalize=True).float() for part in parts])

    held = data.canvas_data(setting.work, 20, held_out=True)
    seen = looked(held.images)
    style = directions([f"An image in {words.spoken(s)} style." for s in words.THEMES])
    thing = directions([f"An image of {words.spoken(o)}." for o in words.OBJECTS])
    scores = {
        "style": (seen @ style.T).argmax(1).cpu().eq(torch.from_numpy(held.styles)).float().mean().item(),
        "object": (seen @ thing.T).argmax(1).cpu().eq(torch.from_numpy(held.objects)).float().mean().item(),
        "n": float(len(seen)),
    }
    shown, labels = data.face_data(setting.work, 1000, held_out=True)
    seen = looked(shown)
    for i, name in enumerate(draw.ATTRIBUTES):
        present, absent = zip(*draw.PROMPTS[name], strict=True)
        says = (
            ((seen @ directions(list(present)).T).mean(1) > (seen @ directions(list(absent)).T).mean(1)).cpu().numpy()
        )
        scores[name] = float((says == labels[:, i]).mean())
    return scores


def text_encoder(setting: Setting) -> Any:
    clip = trained("text", TextLesson(new_clip(setting.device)), setting, ema=False).clip
    return networks.text_encoder({k: v.half().float() for k, v in clip.state_dict().items()}).to(setting.device)


@torch.no_grad()
def text_codes(setting: Setting) -> Tensor:
    """Text codes of every cell's captions [cell caption token code], computed once: the encoder stays frozen."""
    text = text_encoder(setting)
    tokenizer = learnt_tokenizer()
    return torch.stack(
        [text(ids(tokenizer, [c.text for c in cell]).to(setting.device))[0].bfloat16() for cell in captions(seed=6)]
    )
