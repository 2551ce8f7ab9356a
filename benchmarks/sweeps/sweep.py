"""A sweep: methods × concepts × seeds, each erased once and judged on every suite. Sweep files are short TOML."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmarks.attacks.registry import build as build_attack
from benchmarks.suites.suite import Suite, Target, chosen, load_suite
from erase.concept import Kind
from erase.errors import BadInput, match, nearest, plain
from erase.files import file_name, read_toml
from erase.methods.registry import build, method, method_names

VERSION = 1
BY_KIND = "kind"  # the preset named like what the concept is, where the method has one


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelLine(_Table):
    """What is erased from, and how it is loaded."""

    path: str = "pocket-sd"
    device: str = "auto"
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    config: str | None = None
    attention_slicing: bool = False
    offload: bool = False
    online: bool = False


class ConceptLine(_Table):
    """One concept to erase; `keep` names what to protect, or is "others": every other label of the suite."""

    name: str
    kind: Kind | None = None
    anchor: str | None = None
    keep: tuple[str, ...] | Literal["others"] = ()


class MethodLine(BaseModel):
    """One method and the knobs that differ from its preset; `grid` lists several values of a knob, one variant each."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    label: str | None = None
    preset: str | None = None
    grid: Mapping[str, tuple[Any, ...]] = {}

    @property
    def knobs(self) -> dict[str, Any]:
        """The keys that are no keys of every method."""
        return dict(self.model_extra or {})


class Sweep(_Table):
    """A sweep file. `targets` erases the suite's own: all, styles, objects, suite, or names with commas."""

    version: Literal[1] = VERSION
    name: str = "sweep"
    suite: str | tuple[str, ...] = "pocket-canvas-small"
    probe: str | None = None
    data: str | None = None
    targets: str | None = None
    keep: tuple[str, ...] | Literal["others"] = ()
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    attacks: tuple[str, ...] = ()
    attack_rows: int = Field(default=20, ge=1)
    threads: int = Field(default=1, ge=1)
    model: ModelLine = ModelLine()
    concept: tuple[ConceptLine, ...] = ()
    method: tuple[MethodLine, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _erases_something(self) -> Self:
        if not self.concept and self.targets is None:
            raise ValueError('it names no concept; add [[concept]] with a name, or targets = "all"')
        return self

    @property
    def suites(self) -> tuple[str, ...]:
        """The names or files of its suites."""
        return (self.suite,) if isinstance(self.suite, str) else self.suite

    def canvases(self) -> tuple[Suite, ...]:
        """Its suites, opened; BadInput when two have one name, because their reports would."""
        opened = tuple(load_suite(name, probe=self.probe, data=self.data) for name in self.suites)
        names = [suite.name for suite in opened]
        if not opened or len(set(names)) < len(names):
            raise BadInput(f"A sweep needs suites of different names; given {', '.join(names) or 'none'}.")
        return opened


@dataclass(frozen=True)
class Variant:
    """A method with one setting of its knobs, under the label that tables print."""

    label: str
    method: str
    preset: str | None
    knobs: Mapping[str, Any] = field(hash=False)

    def preset_for(self, kind: str) -> str | None:
        """The preset for a concept of this kind."""
        if self.preset is None or plain(self.preset) != BY_KIND:
            return self.preset
        return kind if kind in method(self.method).presets else None


@dataclass(frozen=True)
class Cell:
    """One erasure of a sweep: what is erased, how, and under which seed."""

    variant: Variant
    target: Target
    said: str
    kind: str
    seed: int
    anchor: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its place below the sweep's folder."""
        return f"{file_name(self.variant.label)}/{file_name(self.target.label)}-{self.seed}"


def read_sweep(path: Path) -> Sweep:
    """The sweep in a TOML file; BadInput names the first key or value that will not do."""
    try:
        return Sweep.model_validate(read_toml(path))
    except FileNotFoundError:
        raise BadInput(f"The sweep file {path} cannot be read: there is none.") from None
    except ValidationError as error:
        raise _told(path, error) from None


def cells(sweep: Sweep) -> list[Cell]:
    """Every erasure the sweep asks for, in the order of its file; BadInput for whatever could not be run."""
    canvases = sweep.canvases()
    for attack in sweep.attacks:
        name, _, budget = attack.partition(":")
        build_attack(name, budget or None)
    found = [
        Cell(variant, target, said, kind, seed, anchor, keep)
        for variant in variants(sweep)
        for target, said, kind, anchor, keep in _concepts(sweep, canvases)
        for seed in sweep.seeds
    ]
    names = [cell.name for cell in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadInput(f"The sweep erases {twice} twice; give each method its own label, and each concept one entry.")
    for variant, kind in dict.fromkeys((cell.variant, cell.kind) for cell in found):
        build(variant.method, variant.preset_for(kind), variant.knobs)
    return found


def variants(sweep: Sweep) -> list[Variant]:
    """The method lines with their grids spread out: `label push=2.0` for each value of a gridded knob."""
    found = []
    for line in sweep.method:
        name = match(line.name, method_names(), "method")
        label = line.label or (f"{name}-{line.preset}" if line.preset and plain(line.preset) != BY_KIND else name)
        for values in itertools.product(*line.grid.values()):
            chosen_here = dict(zip(line.grid, values, strict=True))
            told = " ".join([label, *(f"{knob}={value}" for knob, value in chosen_here.items())])
            found.append(Variant(told, name, line.preset, {**line.knobs, **chosen_here}))
    return found


def _concepts(
    sweep: Sweep, canvases: tuple[Suite, ...]
) -> Iterator[tuple[Target, str, str, str | None, tuple[str, ...]]]:
    """Target, words, kind, anchor and what is kept of every concept; each suite must know all of them."""
    first = canvases[0]
    for target in chosen(first, sweep.targets) if sweep.targets is not None else ():
        yield target, first.spoken(target.label), target.kind, None, _kept(first, target, sweep.keep)
    for line in sweep.concept:
        target = first.target(line.name)
        yield target, line.name, line.kind or target.kind, line.anchor, _kept(first, target, line.keep or sweep.keep)
    for suite in canvases[1:]:
        for line in sweep.concept:
            suite.target(line.name)


def _kept(suite: Suite, target: Target, keep: tuple[str, ...] | str) -> tuple[str, ...]:
    if not isinstance(keep, str):
        return tuple(keep)
    labels = [*suite.styles, *suite.objects]
    return tuple(suite.spoken(label) for label in labels if label not in (target.label, suite.photo))


def _told(path: Path, error: ValidationError) -> BadInput:
    """The first thing wrong with a sweep file, as a sentence."""
    # A misspelled key is also a missing one; the spelling is what helps.
    errors = error.errors()
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    place = [str(part) for part in first["loc"] if not isinstance(part, int)]
    if first["type"] == "extra_forbidden":
        kinds: Mapping[str, type[BaseModel]] = {"model": ModelLine, "concept": ConceptLine}
        kind = kinds.get(place[0], Sweep) if len(place) > 1 else Sweep
        return nearest(place[-1], list(kind.model_fields), f"key of sweep file {path.name}")
    where = ".".join(place)
    return BadInput(f"Sweep file {path}: {where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}.")
