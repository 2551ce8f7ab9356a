"""Trains pocket-gan, a StyleGAN2 of 64 px, on Pocket Faces.

    python -m generators.pocket.train.gan --device cuda --minutes 7 --graphs --probes PROBES --out FOLDER [--resume]

With --taught it is held to the faces that `start_gan` taught it, which are then the real ones too: regression fixes
what is drawn, the critic how.  Writes generator.safetensors (averaged weights and w_avg), critic.safetensors and
sheet.png every minute, report.json at the end.  The state for an exact resume stays with the rendered faces in --data;
without it, --resume goes on from the two weight files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generators.pocket.faces.data import rendered
from generators.pocket.faces.probe import FaceProbe, load_face_probe, read_off
from generators.pocket.faces.words import ATTRIBUTES
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.io import files
from generators.stylegan2.network import Shape, StyleGenerator, latents
from generators.stylegan2.training import Recipe, Run, average_w, captured

FACES = 40_000
FIRST_TAUGHT = 6_000_000  # seeds of the codes whose faces are taught; nothing is ever scored on them
EDGES = 2.0  # weight of an error of the edges: thin frames cover few pixels
MIDDLE = 5.0  # and of one in the middle of the face: eyes cover fewer still
LICENCE = "Apache-2.0; trained on drawings by python-avatars (MIT)"


def drawn(generator: StyleGenerator, count: int, *, first: int = 0, psi: float = 1.0) -> Tensor:
    """Pictures uint8 [n 3 64 64] of seeds first … first + count, with the stored noise; on the cpu."""
    device = generator.mapping.w_avg.device
    out = []
    with torch.no_grad():
        for start in range(first, first + count, 256):
            seeds = range(start, min(start + 256, first + count))
            images = generator(latents(seeds, generator.shape.z_dim).to(device), psi)
            out.append(((images + 1) * 127.5).round().clamp(0, 255).byte().cpu())
    return torch.cat(out)


def frechet(one: Tensor, other: Tensor) -> float:
    """Fréchet distance between two sets of features [n f], as Gaussians, in float64."""
    one, other = one.double(), other.double()
    first, second = torch.cov(one.T), torch.cov(other.T)
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()
    return float((one.mean(0) - other.mean(0)).square().sum() + first.trace() + second.trace() - 2 * cross)


def compared(generator: StyleGenerator, pictures: Tensor, labels: Tensor, probe: FaceProbe) -> dict[str, Any]:
    """Attribute rates of generated faces beside the data's, sureness of the probe, and distances of its features."""
    count = min(len(pictures) // 2, 5_000)
    made, real, again = drawn(generator, count, first=100_000), pictures[:count], pictures[count : 2 * count]
    (sure, seen), (known, features), (_, others) = (read_off(probe, images) for images in (made, real, again))
    confident = (sure - 0.5).abs() > 0.4
    rates = {
        attribute: {"data": float(labels[:, i].float().mean()), "generated": float((sure[:, i] > 0.5).float().mean())}
        for i, attribute in enumerate(ATTRIBUTES)
    }
    return {
        "probe": probe.about, "faces": count, "rates": rates,
        "sure": {"generated": float(confident.all(1).float().mean()),
                 "data": float(((known - 0.5).abs() > 0.4).all(1).float().mean())},
        "frechet_of_probe_features": {"generated": frechet(seen, features), "floor": frechet(others, features)},
    }  # fmt: skip


def sheet(pictures: Tensor, wide: int = 16) -> np.ndarray:
    """Pictures uint8 [n 3 64 64] side by side, BGR as OpenCV writes it."""
    tiles = pictures.permute(0, 2, 3, 1).numpy()[..., ::-1]
    return np.vstack([np.hstack(list(tiles[i : i + wide])) for i in range(0, len(tiles) - wide + 1, wide)])


def save(run: Run, folder: Path, state: Path, seconds: float, faces: int) -> None:
    """Writes both networks with their provenance, a sheet of seeds 0 … 127, and the state for an exact resume."""
    run.average.mapping.w_avg.copy_(average_w(run.average))
    about = {
        "name": "pocket-gan", "world": "pocket-faces", "attributes": ATTRIBUTES, "licence": LICENCE,
        "recipe": run.recipe.model_dump(), "seed": run.seed, "steps": run.steps,
        "pictures_seen": run.steps * run.recipe.batch,
        "seconds": round(seconds), "training_faces": faces, "w_avg": "mean of 10000 draws, torch seed 0",
        "taught": start(folder), "versions": {"torch": version("torch")},
        "made_by": "python -m generators.pocket.train.gan",
    }  # fmt: skip
    files.save(folder / "generator.safetensors", run.average, about)
    files.save(folder / "critic.safetensors", run.critic, about)
    cv2.imwrite(str(folder / "sheet.png"), sheet(drawn(run.average, 128)))
    files.write(state, run.state(), {"family": "stylegan2-run", "steps": run.steps})


def start(folder: Path) -> Any:
    """What the weights in a folder say about how `start_gan` taught them; None where it did not."""
    path = folder / "generator.safetensors"
    return files.load_generator(path)[1].get("taught") if path.exists() else None


def batches(pictures: Tensor, draws: torch.Generator) -> Callable[[int], Tensor]:
    """Real pictures in [-1, 1]."""

    def real(count: int) -> Tensor:
        chosen = torch.randint(len(pictures), (count,), generator=draws, device=pictures.device)
        return pictures[chosen].float() / 127.5 - 1

    return real


def slopes(images: Tensor) -> Tensor:
    """How each pixel differs from its neighbours below and to the right."""
    return torch.cat([images.diff(dim=2).flatten(1), images.diff(dim=3).flatten(1)], 1)


def off(made: Tensor, wanted: Tensor) -> Tensor:
    """How far faces [n 3 64 64] are from those wanted: colours and edges, most of all where eyes and mouth are."""
    across, down = torch.arange(64.0), torch.arange(64.0)[:, None]
    weight = 1 + MIDDLE * (-((across - 31.5) / 12).square() - ((down - 35) / 11).square()).exp()
    weight = (weight / weight.mean()).to(made)
    return F.l1_loss(made * weight, wanted * weight) + EDGES * F.l1_loss(slopes(made * weight), slopes(wanted * weight))


def held(pictures: Tensor, codes: Tensor, weight: float, run: Run) -> Callable[[StyleGenerator], Tensor]:
    """A loss of the generator: how far some of the codes' pictures are from those that were taught."""

    def loss(generator: StyleGenerator) -> Tensor:
        chosen = torch.randint(len(codes), (run.recipe.batch,), generator=run.draws, device=codes.device)
        made = generator.synthesis(generator.mapping(codes[chosen]), "none", run.dtype)
        return weight * off(made, pictures[chosen].float() / 127.5 - 1)

    return loss


def begun(recipe: Recipe, shape: Shape, seed: int, device: str, out: Path | None, state: Path) -> Run:
    """A fresh run, or (with `out`) the one whose state or weights are found there."""
    torch.manual_seed(seed)
    if out is not None:
        shape = files.load_generator(out / "generator.safetensors")[0].shape
    run = Run(StyleGenerator(shape).to(device), Critic(shape).to(device), recipe, seed)
    if out is None:
        return run
    if state.exists():
        run.restore(files.read(state)[0])
        return run
    generator, about = files.load_generator(out / "generator.safetensors")
    for network in (run.generator, run.average):
        network.load_state_dict(generator.state_dict())
    run.critic.load_state_dict(files.load_critic(out / "critic.safetensors")[0].state_dict())
    run.steps = about["steps"]
    run.draws.manual_seed(seed + run.steps)  # other draws than the ones already learnt from
    return run


def main() -> None:
    asked = _parser().parse_args()
    began = time.monotonic()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")

    recipe = Recipe(**{name: getattr(asked, name) for name in Recipe.model_fields})
    taught = {"start": FIRST_TAUGHT, "coded": True} if asked.taught else {}
    pictures, labels = rendered(asked.faces, asked.data, **taught)
    print(f"{len(pictures)} faces ready after {time.monotonic() - began:.0f} s", flush=True)
    run = _prepare(asked, recipe, pictures)
    _train(run, pictures, asked, began)
    _report(run, pictures, labels, asked)


def _parser() -> argparse.ArgumentParser:
    """The command line: what a training needs, and every knob of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--minutes", type=float, default=7, help="time limit, rendering included")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument(
        "--data", type=Path, default=Path("temp/pocket-faces"), help="rendered faces and resumable state"
    )
    parser.add_argument("--faces", type=int, default=FACES)
    parser.add_argument("--probes", type=Path, help="folder of face-judge.safetensors, to compare rates at the end")
    parser.add_argument("--graphs", action="store_true", help="hold each step in a CUDA graph: several times faster")
    parser.add_argument("--taught", type=float, default=0.0, help="weight of drawing the faces that start_gan taught")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=float, default=60, help="seconds between saves")
    for name, knob in Recipe.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        if knob.annotation is bool:
            parser.add_argument(flag, action="store_true", help=knob.description)
        else:
            parser.add_argument(flag, type=type(knob.default), default=knob.default, help=knob.description)
    return parser


def _state(asked: argparse.Namespace) -> Path:
    """The file of an exact resume."""
    return asked.data / "gan-state.safetensors"


def _prepare(asked: argparse.Namespace, recipe: Recipe, pictures: Tensor) -> Run:
    """The run that was asked for, fresh or resumed; with --taught it carries the loss of the taught faces."""
    run = begun(recipe, Shape(), asked.seed, asked.device, asked.out if asked.resume else None, _state(asked))
    if asked.taught:
        codes = latents(range(FIRST_TAUGHT, FIRST_TAUGHT + asked.faces), run.generator.shape.z_dim)
        run.beside = held(pictures.to(asked.device), codes.to(asked.device), asked.taught, run)
    return run


def _train(run: Run, pictures: Tensor, asked: argparse.Namespace, began: float) -> None:
    """Trains until --minutes after `began` are over; prints the losses every ten seconds and saves as asked."""
    pieces = run.pieces(batches(pictures.to(asked.device), run.draws))
    if asked.graphs:
        pieces = {name: captured(work, run.draws) for name, work in pieces.items()}
    asked.out.mkdir(parents=True, exist_ok=True)
    first, started = run.steps, time.monotonic()
    printed = saved = started
    while time.monotonic() - began < asked.minutes * 60:
        losses = run.step(pieces)
        now = time.monotonic()
        if now - printed > 10 or run.steps == first + 1:
            printed = now
            _print_losses(run, losses, (run.steps - first) * run.recipe.batch / (now - started))
        if now - saved > asked.save_every:
            saved = now
            save(run, asked.out, _state(asked), now - began, asked.faces)
    save(run, asked.out, _state(asked), time.monotonic() - began, asked.faces)


def _print_losses(run: Run, losses: dict[str, Tensor], pace: float) -> None:
    """One line on where the training is; SystemExit where a loss is not finite. `pace` is in pictures a second."""
    rounded = {name: round(float(value), 3) for name, value in losses.items()}
    if not all(np.isfinite(list(rounded.values()))):
        raise SystemExit(f"Training diverged at step {run.steps}: {rounded}. The last save is kept; raise --r1.")
    seen = run.steps * run.recipe.batch / 1000
    print(f"step {run.steps}, {seen:.0f} k pictures, {pace:.0f}/s, {rounded}", flush=True)


def _report(run: Run, pictures: Tensor, labels: Tensor, asked: argparse.Namespace) -> None:
    """Writes report.json; with --probes it compares the generated faces with the data."""
    report: dict[str, Any] = {
        "steps": run.steps,
        "pictures_seen": run.steps * run.recipe.batch,
        "recipe": run.recipe.model_dump(),
    }
    if asked.probes:
        generator = files.load_generator(asked.out / "generator.safetensors")[0].to(asked.device)
        probe = load_face_probe(asked.probes / "face-judge.safetensors").to(asked.device)
        report |= compared(generator, pictures, labels, probe)
    (asked.out / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps({key: report[key] for key in report if key not in ("probe", "recipe")}, indent=1), flush=True)


if __name__ == "__main__":
    main()
