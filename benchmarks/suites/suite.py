"""A suite: which shots a model is asked to draw, and what each of them should show. Suites are data (TOML)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from benchmarks.metrics.accuracy import PRESETS, Rules
from benchmarks.suites.listing import SUITES
from benchmarks.suites.listing import suite_names as suite_names
from erase.errors import BadInput, nearest, plain
from erase.files import read_toml
from erase.model import Shot
from erase.rng import number
from generators.pocket.canvas.words import SYNONYMS


@dataclass(frozen=True)
class Target:
    """One erased concept as the suite knows it: a label of the style head or of the object head."""

    kind: Literal["style", "object"]
    label: str


@dataclass(frozen=True)
class Cell:
    """One image of an answer set: its wanted labels, the seed the suite names, and the shot that draws it."""

    style: str
    object: str
    seed: int
    shot: Shot


class Words(BaseModel):
    """How a CLIP is asked for a label ({} is the label), and for nothing in particular."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    style: str = "An image in {} style."
    object: str = "An image of {}."
    neutral: str = "An image."


class Suite(BaseModel):
    """Vocabulary, wording, seeds and tier rules of a benchmark; without `steps`, `guidance` the model's own hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = Field(ge=1)
    about: str = ""
    deviations: tuple[str, ...] = ()
    probe: str = "pocket-judge"
    clip: str | None = None
    styles: tuple[str, ...]
    objects: tuple[str, ...]
    prompt: str = "{article} {object} image in {style} style."
    article: Literal["A", "grammar"] = "A"
    photo: str | None = None
    photo_word: str = "Photo"
    encode: Literal["png", "jpeg"] = "png"
    noise: Literal["cell", "seed"] = "cell"
    seeds: tuple[int, ...]
    grid_seeds: tuple[int, ...]
    sampler: Literal["own", "ddim", "dpm++"] = "own"
    steps: int | None = Field(default=None, ge=1)
    guidance: float | None = None
    grid_styles: int | None = Field(default=None, ge=2)
    grid_objects: int | None = Field(default=None, ge=2)
    first_styles: tuple[str, ...] = ()
    first_objects: tuple[str, ...] = ()
    neighbours: Mapping[str, tuple[str, ...]] = {}
    targeted: tuple[str, ...] = ()
    rules: Literal["pocket", "released", "strict"] = "pocket"
    options: Mapping[str, bool | str] = {}
    prompts: Mapping[str, tuple[str, ...]] = {}
    words: Words = Words()
    data: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, labels in (("styles", self.styles), ("objects", self.objects)):
            if list(labels) != sorted(set(labels)):
                raise ValueError(
                    f"{what} must be alphabetical and distinct, because their order is the probe's label order"
                )
        if both := set(self.styles) & set(self.objects):
            raise ValueError(f"{sorted(both)} cannot be a style and an object at once")
        if not self.grid_seeds or not set(self.grid_seeds) <= set(self.seeds):
            raise ValueError(f"grid_seeds {list(self.grid_seeds)} must be one or more of seeds {list(self.seeds)}")
        known = {*self.styles, *self.objects}
        mentioned = {*self.first_styles, *self.first_objects, *self.neighbours, *self.targeted, *self.prompts}
        mentioned |= {label for labels in self.neighbours.values() for label in labels}
        if self.photo:
            mentioned.add(self.photo)
        if unknown := mentioned - known:
            raise ValueError(f"{sorted(unknown)} stand in no list of styles or objects")
        if unknown := set(self.options) - {field.name for field in fields(Rules)}:
            raise ValueError(f"options {sorted(unknown)} are none of {', '.join(f.name for f in fields(Rules))}")
        try:
            TypeAdapter(Rules).validate_python(asdict(self.reading))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"option {first['loc'][0]}: {first['msg']}, not {first['input']!r}") from None
        try:
            self.sentence(self.styles[0], self.objects[0])
            for label in self.prompts:
                self.sentences(label, label)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"prompts may hold {{style}} and {{object}} and no other braces ({error})") from None
        return self

    @property
    def reading(self) -> Rules:
        """How the accuracies' definitions are read: a preset, and the options that differ from it."""
        return replace(PRESETS[self.rules], **self.options)

    @property
    def digest(self) -> str:
        """A hash of everything that decides what is drawn and how it is read."""
        return hashlib.sha256(self.model_dump_json(exclude={"about", "deviations"}).encode()).hexdigest()[:16]

    def target(self, concept: str) -> Target:
        """The label a concept's name or synonym means, however it is spelled. BadInput names the nearest one."""
        wanted = plain(concept)
        if self.photo and wanted == plain(self.photo_word):
            return Target("style", self.photo)
        for label in (*self.styles, *self.objects):
            if wanted == plain(label) or wanted in SYNONYMS.get(label, ()):
                return Target("style" if label in self.styles else "object", label)
        raise nearest(concept, [*self.styles, *self.objects], f"concept of suite {self.name}")

    def targets(self, concepts: Iterable[str]) -> tuple[Target, ...]:
        """The targets of several concept names, each once, in the order given."""
        return tuple(dict.fromkeys(self.target(concept) for concept in concepts))

    def spoken(self, label: str) -> str:
        """The label as a prompt says it."""
        return self.photo_word if label == self.photo else label.replace("_", " ")

    def sentence(self, style: str, thing: str) -> str:
        """The prompt of one cell of the grid."""
        thing = self.spoken(thing)
        article = "An" if self.article == "grammar" and thing[0].lower() in "aeiou" else "A"
        return self.prompt.format(article=article, object=thing, style=self.spoken(style))

    def cell(self, style: str, thing: str, seed: int, prompt: str | None = None) -> Cell:
        """One image of the answer set; with `noise = "cell"` every cell starts from latents of its own."""
        asked = self.sentence(style, thing) if prompt is None else prompt
        own = () if prompt is None else (prompt,)
        # 31 bits: a seed a person can type again.
        drawn = seed if self.noise == "seed" else number(seed, "cell", style, thing, *own) >> 32
        return Cell(style, thing, seed, Shot(seed=drawn, prompt=asked))

    def sentences(self, style: str, thing: str) -> tuple[str | None, ...]:
        """The suite's own prompts for a cell, with {style} and {object} filled in; None is the common sentence."""
        own = (*self.prompts.get(thing, ()), *self.prompts.get(style, ()))
        said = {"style": self.spoken(style), "object": self.spoken(thing)}
        return tuple(prompt.format(**said) for prompt in own) or (None,)

    def shots(self, concepts: Sequence[str] = ()) -> list[Cell]:
        """The answer set: the whole grid at `grid_seeds`, and every row that shows a target at all `seeds`."""
        targets = self.targets(concepts)
        styles = self._grid("style", self.styles, self.grid_styles, self.first_styles, targets)
        objects = self._grid("object", self.objects, self.grid_objects, self.first_objects, targets)
        labels = {target.label for target in targets}
        return [
            self.cell(style, thing, seed, prompt)
            for style in styles
            for thing in objects
            for seed in self.seeds
            if seed in self.grid_seeds or style in labels or thing in labels
            for prompt in self.sentences(style, thing)
        ]

    def _grid(
        self, kind: str, labels: tuple[str, ...], size: int | None, first: tuple[str, ...], targets: Sequence[Target]
    ) -> list[str]:
        """The labels one side of the grid shows: targets, their neighbours, then `first`, then any, in label order."""
        if size is None:
            return list(labels)
        erased = [target.label for target in targets if target.kind == kind]
        near = [n for label in erased for n in self.neighbours.get(label, ()) if n in labels]
        rest = [label for label in dict.fromkeys([*near, *first, *labels]) if label not in erased and label in labels]
        # The photo theme is no style to forget or keep, so a small grid spends its images on styles.
        rest.sort(key=lambda label: label == self.photo)
        chosen = {*erased, *rest[: size - min(len(erased), 1)]}
        return [label for label in labels if label in chosen]


def chosen(suite: Suite, targets: str) -> tuple[Target, ...]:
    """`all`, `styles`, `objects`, `suite` (what it picks), or names with commas; the photo is nothing to erase."""
    styles = [label for label in suite.styles if label != suite.photo]
    both = [*styles, *suite.objects]
    known = {"all": both, "styles": styles, "objects": list(suite.objects), "suite": list(suite.targeted) or both}
    return suite.targets(known.get(targets.strip().lower()) or [name for name in targets.split(",") if name.strip()])


def load_suite(name: str | Path, *, probe: str | None = None, data: str | None = None) -> Suite:
    """The suite of that name, or the one in that TOML file, read by another probe or beside other data where given.

    BadInput for an unknown name or a file that is no suite.
    """
    path = Path(name)
    if path.suffix != ".toml":
        known = {plain(bundled): bundled for bundled in suite_names()}.get(plain(str(name)))
        if known is None:
            raise nearest(str(name), suite_names(), "suite")
        path = SUITES / f"{known}.toml"
    try:
        found = Suite.model_validate(read_toml(path))
        given = {"probe": probe, "data": data}
        return found.model_copy(update={key: value for key, value in given.items() if value is not None})
    except FileNotFoundError:
        raise BadInput(f"There is no suite file {path}; the bundled suites are {', '.join(suite_names())}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise nearest(where, list(Suite.model_fields), f"key of suite file {path.name}") from None
        raise BadInput(f"suite file {path}: {where + ': ' if where else ''}{first['msg']}") from None
