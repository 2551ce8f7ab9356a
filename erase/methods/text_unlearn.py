"""Text-to-Unlearn ("Prompting Forgetting", Nagasubramaniam et al., arXiv 2504.01218), after reviews; details ours.

A CLIP scores images of the frozen generator by what the words say; a ridge regression of the scores on their codes w
gives the edit b that adds the concept.  Pairs w, ŵ = w + α b fix one reference direction in CLIP's image space,

    i = norm mean (E(G(ŵ)) − E(G(w))),

and a student is tuned so that what it removes from G(ŵ) points along i (the paper's loss; ε keeps it finite at Δ = 0):

    Δ = E(G(ŵ)) − E(G_t(ŵ)),   L_dir = 1 − ⟨Δ, i⟩ / √(‖Δ‖² + ε²).

The other terms are ours: images without the concept stay; those that have it by nature are drawn as the frozen
generator draws the code with the concept taken back, and until CLIP scores them as images without it.  What is kept is
scored likewise, and b is at right angles to it.  In place of b, the pairs may come from StyleCLIP's latent mapper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from erase.concept import Concept
from erase.edit import Edit
from erase.gan.distillation import Part, aside, drawn_codes, layered, learning, multiscale_l1, students, teaching
from erase.gan.mapper import Lesson, Mapper
from erase.model import BadInput, Encoder, Gan
from erase.request import Request
from erase.rng import number, stream
from erase.training.deltas import DeltaOptimizer, tune
from erase.work import Step, Work, with_state

# How far a code is taken back, in units of its excess over the usual, until CLIP no longer sees the concept.
AMOUNTS = (1.0, 1.5, 2.0, 3.0)
MOST_REACH = 4.0  # how many times a mapper's own step is taken at most


class TextUnlearn(BaseModel, frozen=True, extra="forbid"):
    """Erases what words describe from a GAN, guided by a CLIP alone: no labels, no discriminator."""

    paper: ClassVar[str] = "Prompting Forgetting: Unlearning in GANs via Textual Guidance (arXiv 2504.01218)"
    needs: ClassVar[type] = Gan
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "attribute": {},
        "far": {
            "repair": 0.0,
            "natural": 0.0,
            "unseen": 0.0,
            "hold": 0.0,
        },  # the baseline that only leaves the direction
    }

    encoder: tuple[str, ...] = Field(
        ("pocket-clip",), min_length=1, description="one or several CLIPs: bundled names or open_clip folders"
    )
    present: tuple[str, ...] = Field(
        ("a face with {}", "a person with {}", "{} face"),
        description="sentences that describe an image with the concept",
    )
    absent: tuple[str, ...] = Field(
        ("a face without {}", "a person without {}", "a face"),
        description="sentences that describe an image without it",
    )
    pool: int = Field(1024, ge=16, le=100_000, description="images from which the direction is learnt")
    part: Part = Field(
        "synthesis", description="trained layers: synthesis, all but the colour layers · readers, the style layers only"
    )
    editor: Literal["linear", "mapper"] = Field(
        "linear", description="editor of codes: linear, a regression · mapper, StyleCLIP's trained network"
    )
    mapper_steps: int = Field(300, ge=1, le=50_000, description="optimiser steps of each mapper")
    steps: int = Field(300, ge=1, le=100_000, description="optimiser steps")
    lr: float = Field(0.0016, gt=0, le=0.1, description="Adam's learning rate in units of unfolded weights")
    batch: int = Field(16, ge=3, le=1024, description="images per step")
    direction: float = Field(1.0, ge=0, le=100, description="weight of the reference direction (λ_d)")
    repair: float = Field(2.0, ge=0, le=100, description="weight of mapping an edited code back to its unedited image")
    natural: float = Field(
        4.0, ge=0, le=100, description="weight of the loss on images that show the concept without an edited code"
    )
    unseen: float = Field(1.0, ge=0, le=100, description="weight of CLIP's absence loss on those images")
    hold: float = Field(4.0, ge=0, le=100, description="weight of the loss that keeps images without the concept")
    enough: float = Field(
        0.1, ge=0, le=1, description="share of the concept left at which an image counts as cleared (τ)"
    )
    agreement: float = Field(
        0.2, ge=-1, le=1, description="least agreement of the pairs on one direction; below it the method refuses"
    )

    def cost(self, request: Request) -> dict[str, float]:
        """Images of the frozen generator and of the student."""
        mapped = self.mapper_steps if self.editor == "mapper" else 0
        return {"teacher_images": self.pool + self.steps * self.batch * 4 / 3, "gradient_steps": self.steps + mapped}

    def finish(self, request: Request, edit: Edit) -> Work[Edit]:
        """The edit with the names of the CLIPs that steered it."""
        yield from ()
        return Edit(edit.deltas, {**edit.about, "steered_by": " + ".join(self.encoder)})

    def learn(self, request: Request, state: Mapping[str, Tensor]) -> Work[dict[str, Tensor]]:
        """Scores a pool, finds the directions, tunes; each Step's state resumes the job to the same bits."""
        model, concepts, keep, seed = request.model, request.concepts, request.keep, request.seed
        eye = Together([model.encoder(name) for name in self.encoder])
        for concept in (*concepts, *keep):
            if concept.kind == "identity":
                raise BadInput(
                    f"{concept.name!r} names a person, and text-unlearn asks CLIP for words such as 'beard'. Use guide."
                )
        said = [clause for concept in concepts for clause in clauses(concept)]
        kept = [clause for concept in keep for clause in clauses(concept)]
        first = number(seed, "pool") >> 34
        w = drawn_codes(model, range(first, first + self.pool))
        pool = Pool(model, eye, w)
        scores = yield from self._scores(model, eye, w, said + kept, state)
        spared = [ridge(w - w.mean(0), column - column.mean()) for column in scores.T[len(said) :]]
        known = {"scores": scores}
        edits = []
        for clause, column in zip(said, scores.T, strict=False):
            mapper = None
            if self.editor == "mapper":
                work = self._mapped(model, eye, w[column <= valley(column)], clause, seed, state)
                mapper, learnt, state = yield from with_state(work, known)
                known |= learnt
            words = self._words(eye, clause)
            edits.append(Direction.found(pool, column, words, clause, self.agreement, spared, mapper))
        cleared = yield from with_state(self._cleared(model, eye, w, edits, state), known)
        masters = students(model, self.part, self.lr)
        one = partial(self._one, pool, masters, cleared, edits, seed)
        yield from with_state(tune(self.steps, one, (masters,), state), known | {"cleared": cleared})
        return masters.result()

    def _mapped(
        self, model: Gan, eye: Encoder, w: Tensor, clause: str, seed: int, state: Mapping[str, Tensor]
    ) -> Work[tuple[Mapper, dict[str, Tensor], Mapping[str, Tensor]]]:
        """The clause's mapper, its weights by name, and what is left to go on from: nothing, if it has trained."""
        lesson = Lesson(model, eye, w, eye.texts(_filled(self.present, clause)).mean(0), number(seed, clause))
        name = f"mapper {clause}."
        learnt = {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}
        if not learnt:
            for step in tune(self.mapper_steps, lesson.one, (lesson.masters,), state):
                yield replace(step, stage=f"map {clause}")
            learnt, state = lesson.learnt(), {}
        lesson.load(learnt)
        return lesson.mapper, {f"{name}{key}": value for key, value in learnt.items()}, state

    def _scores(
        self, model: Gan, eye: Encoder, w: Tensor, said: Sequence[str], state: Mapping[str, Tensor]
    ) -> Work[Tensor]:
        """How much more each image of the pool is like each clause than unlike it: [n clause]."""
        if "scores" in state:
            return state["scores"].to(w)
        words = torch.stack([self._words(eye, clause) for clause in said])
        found = state["scored"].to(w) if "scored" in state else torch.empty(0, len(said)).to(w)
        for part in w[len(found) :].split(64) if len(found) < len(w) else ():
            with torch.no_grad():
                scores = eye.images(model.synthesis(layered(model, part)) / 2 + 0.5) @ words.T
            found = torch.cat([found, scores])
            so_far = {"scored": found}
            yield Step("score", len(found), len(w), state=so_far.copy)
        return found

    def _words(self, eye: Encoder, clause: str) -> Tensor:
        """What an image with the clause is more like than one without: [e]."""
        return eye.texts(_filled(self.present, clause)).mean(0) - eye.texts(_filled(self.absent, clause)).mean(0)

    def _cleared(
        self, model: Gan, eye: Encoder, w: Tensor, edits: Sequence[Direction], state: Mapping[str, Tensor]
    ) -> Work[Tensor]:
        """For each code that has a clause, the nearest one without in CLIP's eyes; for the others themselves: [n w]."""
        if "cleared" in state:
            return state["cleared"].to(w)
        cleared, kept = w.clone(), {name: state[name].to(w.device) for name in ("left", "still") if name in state}
        left = kept.get("left", torch.stack([edit.having for edit in edits]).any(0).nonzero()[:, 0])
        first, seen = (int(state[name]) if name in state else 0 for name in ("amounts", "seen"))
        if "clearing" in state:
            cleared = state["clearing"].to(w, copy=True)
        for amount in range(first, len(AMOUNTS)):
            cleared[left] = taken_back(w[left], edits, AMOUNTS[amount])
            still = [kept["still"]] if seen else []
            for part in left.split(64)[seen:]:
                still.append(part[self._shows(model, eye, cleared[part], edits)])
                seen += 1
                so_far = {"clearing": cleared, "amounts": torch.tensor(amount), "seen": torch.tensor(seen)}
                so_far |= {"left": left, "still": torch.cat(still)}
                yield Step("clear", amount + 1, len(AMOUNTS), state=so_far.copy)
            left, seen = torch.cat(still) if still else left, 0
        return cleared

    @torch.no_grad()
    def _shows(self, model: Gan, eye: Encoder, w: Tensor, edits: Sequence[Direction]) -> Tensor:
        """Whether CLIP sees one of the clauses in the image of each code [n w]: [n]."""
        seen = eye.images(model.synthesis(layered(model, w)) / 2 + 0.5)
        return torch.stack([seen @ edit.words > edit.threshold for edit in edits]).any(0)

    def _one(
        self, pool: Pool, masters: DeltaOptimizer, cleared: Tensor, edits: Sequence[Direction], seed: int, step: int
    ) -> dict[str, float]:
        model, eye, w = pool.model, pool.eye, pool.w
        rng = stream(seed, "batch", step)
        count, edit = self.batch // 3, edits[int(torch.randint(len(edits), (), generator=rng))]
        having = torch.stack([e.having for e in edits]).any(0)
        carrier, clean, bare = (_some(where, count, rng) for where in (having, ~having, ~edit.having))
        natural, clean, bare = w[carrier], w[clean], w[bare]
        length = 0.5 + 2.5 * torch.rand(count, 1, generator=rng).to(w)  # a searcher may go further than the edit
        edited = edit.moved(model, bare, length)
        target = teaching(model, torch.cat([layered(model, torch.cat([cleared[carrier], clean, bare])), edited]))
        wanted, marked = target[: 3 * count], target[3 * count :]
        with torch.no_grad():
            before, after = eye.images(wanted[2 * count :] / 2 + 0.5), eye.images(marked / 2 + 0.5)

        def losses() -> dict[str, Tensor]:
            drawn = model.synthesis(torch.cat([layered(model, torch.cat([natural, clean])), edited]))
            own, now = eye.images(torch.cat([drawn[:count], drawn[2 * count :]]) / 2 + 0.5).split(count)
            left = (now - before) @ edit.towards / ((after - before) @ edit.towards).clamp(min=1e-4)
            lost = 1 - (after - now) @ edit.towards / ((after - now).square().sum(1) + edit.blur**2).sqrt()
            return {
                "direction": self.direction * (lost * (left.detach() > self.enough)).mean(),
                "repair": self.repair * multiscale_l1(drawn[2 * count :], wanted[2 * count :]),
                "natural": self.natural * multiscale_l1(drawn[:count], wanted[:count]),
                "unseen": self.unseen * torch.stack([e.excess(own) for e in edits]).sum(0).mean(),
                "hold": self.hold * multiscale_l1(drawn[count : 2 * count], wanted[count : 2 * count]),
            }

        return learning(model, masters, losses)


class Together:
    """Several CLIPs as one: unit vectors side by side, so that cosines are the mean of theirs."""

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self.encoders, self.name = encoders, " + ".join(encoder.name for encoder in encoders)

    def images(self, images: Tensor) -> Tensor:
        return F.normalize(torch.cat([encoder.images(images) for encoder in self.encoders], 1), dim=1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(torch.cat([encoder.texts(texts) for encoder in self.encoders], 1), dim=1)


@dataclass(frozen=True)
class Pool:
    """A GAN, the CLIP that looks at its images, and the codes w [n w] whose images it looks at."""

    model: Gan
    eye: Encoder
    w: Tensor


@dataclass(frozen=True)
class Direction:
    """One clause: the step in w that adds it [w], who has it [n], how scores follow w, and CLIP's direction [e].

    `words` [e] scores an image, `threshold` splits the scores; `bare` and `full` are the usual ones without and with.
    """

    step: Tensor
    having: Tensor
    slope: Tensor
    bare: Tensor
    centre: Tensor
    words: Tensor
    threshold: Tensor
    towards: Tensor
    blur: float
    full: Tensor
    mapper: Mapper | None = None
    reach: float = 1.0

    def moved(self, model: Gan, w: Tensor, length: Tensor | float = 1.0) -> Tensor:
        """Codes [n w] with the clause added, at every layer [n layer w]; 1 adds as much as is usual with it."""
        if self.mapper is None:
            return layered(model, w + length * self.step)
        length = torch.as_tensor(length).to(w).reshape(-1, 1, 1)
        return layered(model, w) + self.reach * length * self.mapper(w)

    def excess(self, seen: Tensor) -> Tensor:
        """How much more of the clause codes of images [n e] show than is usual without: 1 is as much as with it [n]."""
        return ((seen @ self.words - self.bare) / (self.full - self.bare)).clamp(min=0)

    @staticmethod
    def found(
        pool: Pool,
        scores: Tensor,
        words: Tensor,
        clause: str,
        agreement: float,
        spared: Sequence[Tensor] = (),
        mapper: Mapper | None = None,
    ) -> Direction:
        """From scores [n] of codes [n w], at right angles to the directions [w] in which what is kept lies.

        BadInput where nobody has it, or where the edit is not one direction.
        """
        model, eye, w = pool.model, pool.eye, pool.w
        threshold = valley(scores)
        having = scores > threshold
        if not 2 <= int(having.sum()) <= len(w) - 2:
            raise BadInput(f"Of {len(w)} images of {model.name}, {int(having.sum())} look like {clause!r}: too few.")
        centre = w.mean(0)
        slope = aside(ridge(w - centre, scores - scores.mean()), spared)
        bare, full = scores[~having].mean(), scores[having].mean()
        step = (full - bare) * slope / slope.square().sum()
        found = Direction(
            step, having, slope, bare, centre, words, threshold, words, blur=0.0, full=full, mapper=mapper
        )
        some = w[~having][:64]
        with torch.no_grad():
            plain = eye.images(teaching(model, layered(model, some)) / 2 + 0.5)
            if mapper is not None:
                gained = ((eye.images(teaching(model, found.moved(model, some)) / 2 + 0.5) - plain) @ words).mean()
                found = replace(found, reach=float((full - bare) / gained.clamp(min=(full - bare) / MOST_REACH)))
            ways = eye.images(teaching(model, found.moved(model, some)) / 2 + 0.5) - plain
        towards = F.normalize(ways.mean(0), dim=0)
        agreed = float((F.normalize(ways, dim=1) @ towards).mean())
        if agreed < agreement:
            raise BadInput(
                f"What {clause!r} adds to images of {model.name} is not one direction (agreement {agreed:.2f}, needed "
                f"{agreement:g}); try other words, or a method that is shown examples, such as feature-unlearn."
            )
        blur = 0.05 * float(ways.norm(dim=1).mean())
        return replace(found, towards=towards, blur=blur)


def clauses(concept: Concept) -> list[str]:
    """What a concept's phrases name, one by one: 'eyeglasses and beard' is two."""
    parts = (part.strip() for phrase in concept.phrases for part in phrase.replace(",", " and ").split(" and "))
    return list(dict.fromkeys(filter(None, parts)))


def valley(scores: Tensor) -> Tensor:
    """The threshold that splits scores [n] into the two most different groups (Otsu 1979)."""
    ordered = scores.double().sort().values
    n = torch.arange(1, len(ordered), dtype=torch.float64, device=scores.device)
    below = ordered.cumsum(0)[:-1]
    apart = n * (len(ordered) - n) * (below / n - (ordered.sum() - below) / (len(ordered) - n)).square()
    best = int(apart.argmax())
    return ((ordered[best] + ordered[best + 1]) / 2).to(scores)


def ridge(x: Tensor, y: Tensor, share: float = 0.01) -> Tensor:
    """b that minimises ‖xb − y‖² + λ‖b‖² for centred x [n w], y [n]; λ is a share of the mean variance, times n."""
    x64, y64 = x.double(), y.double()
    damping = share * x64.square().sum() / x.shape[1]
    return torch.linalg.solve(x64.T @ x64 + damping * torch.eye(x.shape[1]).to(x64), x64.T @ y64).to(x)


def taken_back(w: Tensor, edits: Sequence[Direction], amount: float = 1.0) -> Tensor:
    """Codes without what the regressions read off them: 1 brings each clause's score down to what is usual without."""
    for edit in edits:
        read = (w - edit.centre) @ edit.slope / edit.slope.square().sum()
        usual = (edit.bare - _mean_score(edit)) / edit.slope.square().sum()
        w = w - amount * (read - usual).clamp(min=0)[:, None] * edit.slope
    return w


def _mean_score(edit: Direction) -> Tensor:
    share = edit.having.double().mean().to(edit.bare)
    return edit.bare + share * (edit.step @ edit.slope)


def _some(where: Tensor, count: int, rng: torch.Generator) -> Tensor:
    places = where.nonzero()[:, 0]
    return places[torch.randint(len(places), (count,), generator=rng).to(places.device)]


def _filled(templates: Sequence[str], clause: str) -> list[str]:
    return [template.replace("{}", clause) for template in templates]
