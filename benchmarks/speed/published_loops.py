"""Published loops, written from their descriptions, as the yardstick for what erasing used to cost.

ESD's first release, per gradient step: a fresh rollout of the student under guidance 3 over the 50-step DDIM grid, up
to a random time; two predictions of a second, frozen copy of the model; one of the student. Batch 1, nothing cached. As
in the release, its latents are a little cleaner than the time they are labelled with. AdvUnlearn's does the same for
every step of its attack, and once more for each of the five prompts it retains. DoCo's keeps a second U-Net to ask, and
the graphs of what is erased and what is retained alive together.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from erase.concept import Concept
from erase.edit import Edit
from erase.model import Codes, Denoiser, Shot
from erase.prompts.templates import spoken
from erase.rng import stream
from erase.training.patchgan import Critic
from erase.training.prompt_adversary import place, random_words
from erase.training.slices import select
from erase.training.surgery import project
from erase.work import Step, Work

GRID, GUIDANCE, ETA = 50, 3.0, 1.0
ATTACK_LR, GAMMA, CRITIC_LR = 1e-3, 1.0, 5e-4  # as released


def published_esd(model: Denoiser, concept: Concept, *, iterations: int, lr: float, seed: int = 0) -> Work[Edit]:
    """ESD-x with two whole models in memory; `model` is the frozen one and keeps its weights."""
    student = copy.deepcopy(model)
    names = select(student.network, "cross")
    parameters = dict(student.network.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    optimiser = torch.optim.Adam([parameters[name] for name in names], lr=lr)
    with torch.no_grad():
        codes = model.encode([concept.phrases[0], ""])
    gap = len(model.path) // GRID

    for step in range(iterations):
        draw = stream(seed, "published", step)
        k = int(torch.randint(GRID, (1,), generator=draw))
        start = int(torch.randint(2**31, (1,), generator=draw))
        z = student.noise([Shot(start)])
        for t in _times(gap)[: GRID - k]:
            z = _guided(student, z, t, gap, codes)
        t = torch.randint(gap * k, gap * (k + 1), (1,), generator=draw).to(model.device)
        with torch.no_grad():
            absent = model.predict(z, t, codes[1])
            present = model.predict(z, t, codes[0])
        with torch.enable_grad():
            said = student.predict(z, t, codes[0]).float()
            loss = (said - (absent - ETA * (present - absent)).float()).square().mean()
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        yield Step("published", step + 1, iterations, {"erase": float(loss.detach())})
    return _edit("esd", model, parameters, names, concept, seed)


def published_advunlearn(
    model: Denoiser,
    concept: Concept,
    retained: list[str],
    *,
    iterations: int,
    lr: float,
    attack_steps: int = 30,
    seed: int = 0,
) -> Work[Edit]:
    """AdvUnlearn's text-encoder mode after its warm-up: batch 1, five retained prompts, a prefix of one free word.

    As released: gradients pile up over the attack's steps, its last update is thrown away, and the U-Net's weights take
    part in every backward pass though nothing trains them.
    """
    student = copy.deepcopy(model)
    student.network.requires_grad_(True)
    names = select(student.network, "text")
    parameters = dict(student.network.named_parameters())
    optimiser = torch.optim.Adam([parameters[name] for name in names], lr=lr)
    with torch.no_grad():
        clean = model.encode([concept.phrases[0], ""])
        others = model.encode([*retained, ""])
    placed = place(student, student.tokens(concept.phrases[0]), 1, "prefix")

    @torch.no_grad()
    def teacher(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return model.predict(z, t, clean[0]), model.predict(z, t, clean[1])

    for step in range(iterations):
        draw = stream(seed, "published", step)
        free = random_words(student, draw, 1, 1).requires_grad_(True)
        attacker, used = torch.optim.Adam([free], lr=ATTACK_LR), free.detach()
        for _ in range(attack_steps):
            z, t = _lesson(model, draw, clean)
            present, _absent = teacher(z, t)
            used = free.detach().clone()
            with torch.enable_grad():
                (student.predict(z, t, placed.read(student, free)) - present).float().square().mean().backward()
            attacker.step()
        z, t = _lesson(model, draw, clean)
        present, absent = teacher(z, t)
        rows = torch.randint(len(retained), (5,), generator=draw).tolist()
        kept = [(row, *_lesson(model, draw, Codes.cat([others[row], others[-1]]))) for row in rows]
        with torch.enable_grad():
            said = student.predict(z, t, placed.read(student, used)).float()
            loss = (said - (absent - ETA * (present - absent)).float()).square().mean()
            for row, at, time in kept:
                with torch.no_grad():
                    goal = model.predict(at, time, others[row])
                kept_said = student.predict(at, time, student.encode([retained[row]]))
                loss = loss + GAMMA / len(kept) * (kept_said - goal).float().square().mean()
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        yield Step("published", step + 1, iterations, {"erase": float(loss.detach())})
    return _edit("advunlearn", model, parameters, names, concept, seed)


def published_doco(
    model: Denoiser,
    concept: Concept,
    *,
    iterations: int,
    lr: float,
    batch: int = 8,
    pictures: int = 16,
    steps: int = 25,
    seed: int = 0,
) -> Work[Edit]:
    """DoCo's first release without its warm-up: K/V of a student beside a frozen copy, half of the lessons retained.

    As in the code it grew from, both halves go through the student in one batch; the copy is asked at every step.
    """
    text, instead = spoken(concept, templates=False)[0]
    z0 = yield from model.latents(
        [Shot(place, instead) for place in range(pictures)], steps=steps, guidance=6.0, batch=batch
    )
    student = copy.deepcopy(model)
    names = select(student.network, "kv")
    parameters = dict(student.network.named_parameters())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    trained = [parameters[name] for name in names]
    optimiser = torch.optim.AdamW(trained, lr=lr, weight_decay=1e-2)
    critic = Critic(model.latent_shape, 1, CRITIC_LR, stream(seed, "critic"), torch.device(model.device))
    only = torch.zeros(batch, dtype=torch.long, device=model.device)

    for step in range(iterations):
        draw = stream(seed, "published", step)
        rows = torch.randint(pictures, (2 * batch,), generator=draw)
        t = torch.randint(len(model.path), (2 * batch,), generator=draw).to(model.device)
        noise = torch.randn(2 * batch, *model.latent_shape, generator=draw).to(model.device)
        z = model.path.add_noise(z0[rows].to(model.device, torch.float32), noise, t).to(model.dtype)
        with torch.no_grad():
            told = model.encode([text] * batch + [instead] * batch)
            taught = model.predict(z[:batch], t[:batch], told[batch:]).float()
        with torch.enable_grad():
            said = student.predict(z, t, told).float()
            doubts = critic.doubts(said[:batch], only)
            retain = (said[batch:] - noise[batch:]).square().mean()
            gone = dict(zip(names, torch.autograd.grad(doubts, trained, retain_graph=True), strict=True))
            held = dict(zip(names, torch.autograd.grad(retain, trained), strict=True))
        for name, gradient in project(gone, held, 1.0).items():
            parameters[name].grad = gradient
        optimiser.step()
        loss = critic.learn(taught, said[:batch], only)
        yield Step("published", step + 1, iterations, {"erase": float(doubts.detach()), "discriminator": loss})
    return _edit("doco", model, parameters, names, concept, seed)


def _edit(
    method: str, model: Denoiser, trained: Mapping[str, Tensor], names: list[str], concept: Concept, seed: int
) -> Edit:
    before = dict(model.network.named_parameters())
    deltas = {name: (trained[name].detach() - before[name].detach()).cpu() for name in names}
    return Edit(deltas, {"method": f"published-{method}", "concepts": [concept.model_dump(mode="json")], "seed": seed})


def _times(gap: int) -> list[int]:
    """961, 941 … 1 for 1000 training times: the release's 50-step grid without its noisiest time."""
    return list(range(gap * (GRID - 2) + 1, 0, -gap))


def _lesson(model: Denoiser, draw: torch.Generator, codes: Codes) -> tuple[Tensor, Tensor]:
    """A latent of a fresh rollout on codes [2 …] (with the prompt, without), stopped at a random time, and that."""
    gap = len(model.path) // GRID
    k = int(torch.randint(GRID, (1,), generator=draw))
    z = model.noise([Shot(int(torch.randint(2**31, (1,), generator=draw)))])
    for t in _times(gap)[: GRID - k]:
        z = _guided(model, z, t, gap, codes)
    return z, torch.randint(gap * k, gap * (k + 1), (1,), generator=draw).to(model.device)


@torch.no_grad()
def _guided(model: Denoiser, z: Tensor, t: int, gap: int, codes: Codes) -> Tensor:
    """One DDIM step (η = 0) from t to t − gap under guidance."""
    both = model.predict(torch.cat([z, z]), torch.tensor([t, t], device=z.device), codes)
    present, absent = both.chunk(2)
    noise = absent + GUIDANCE * (present - absent)
    return model.path.step(noise, z, t, max(0, t - gap))
