"""From a name on the command line to a model, or to a run's model and edit."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import generators
from app.runs.run import Run, is_run, open_run
from erase.edit import Edit
from erase.errors import BadInput, plain
from erase.model import Generator
from generators.checkpoints import text_encoder_edit


@dataclass(frozen=True)
class Loading:
    """How a model is put into memory; none of it changes what the model is, only where and how finely it computes."""

    device: str = "auto"
    dtype: str = "auto"
    attention_slicing: bool = False
    offload: bool = False
    config: str | None = None
    online: bool = False


@dataclass(frozen=True)
class Source:
    """What a MODEL|RUN argument means: the base model's name or absolute path, and the run whose edit is applied.

    An edit file, or a LoRA or text encoder that was exported here, stands for its base model with that edit.
    """

    base: str
    run: Run | None
    applied: Edit | None = None

    def edit(self) -> Edit | None:
        """The run's or the file's edit; None for a plain model."""
        return self.applied if self.run is None else self.run.edit()

    def loading(self, args: argparse.Namespace) -> Loading:
        """The loading options of a command line, with what the run was made with; --dtype may be another."""
        asked = loading(args)
        if self.run is None:
            return asked
        job = self.run.job
        if asked.config is not None and str(Path(asked.config).resolve()) != job.config:
            made = f"with --config {job.config}" if job.config else "without --config"
            raise BadInput(f"{self.run.folder} was made {made}, so it is not opened with {asked.config}; leave it out.")
        return replace(asked, config=job.config, dtype=job.dtype if asked.dtype == "auto" else asked.dtype)

    def check(self, model: Generator) -> None:
        """BadInput when a model's weights are not those that the run began with or the edit was made for."""
        if self.run is not None:
            self.run.check_base(model)
            return
        made_for = None if self.applied is None else self.applied.about.get("base")
        if made_for is not None and made_for != model.fingerprint:
            raise BadInput(
                f"This edit was made for other weights than {self.base} holds: their hash was "
                f"{str(made_for)[:12]}, it is {model.fingerprint[:12]}. Put its own base model there."
            )

    def ledger(self) -> list[Edit]:
        """The run's edits one by one, oldest first; a file's one; none of a plain model."""
        if self.run is not None:
            return self.run.ledger()
        return [] if self.applied is None else [self.applied]


def source(name: str) -> Source:
    """Read a MODEL|RUN argument without loading anything; BadInput for a folder of neither kind comes with loading."""
    if not name.strip():
        raise BadInput("The model has no name. `studio models` lists those that come with the studio.")
    if is_run(name):
        run = open_run(name)
        return Source(run.job.model, run)
    for bundled in generators.BUNDLED:
        if plain(bundled) == plain(name):
            return Source(bundled, None)
    if (place := text_encoder_edit.place(Path(name))) is not None:
        applied = text_encoder_edit.read(place)
        return Source(text_encoder_edit.base(applied, place), None, applied)
    return Source(str(Path(name).resolve()) if Path(name).exists() else name, None)


def loaded(what: Source, args: argparse.Namespace) -> Any:
    """The base model of a source, loaded as its run loaded it; BadInput when the edit was made for another."""
    model = load(what.base, what.loading(args))
    what.check(model)
    return model


# Any, because type checkers hold a cached_property against the adapters' own protocol, which asks for a property.
def load(base: str, loading: Loading) -> Any:
    """The base model of a source, an adapter from `generators`; a hub id is fetched only with `online`."""
    try:
        model = generators.load(
            base,
            device=loading.device,
            dtype=loading.dtype,
            attention_slicing=loading.attention_slicing,
            offload=loading.offload,
            config=loading.config,
        )
        for note in getattr(model, "notes", ()):
            print(note, file=sys.stderr)
        return model
    except BadInput as error:
        if base.count("/") == 1 and not Path(base).is_absolute() and not loading.online:
            raise BadInput(f"{error} If {base!r} is a hub id, add --online to let it be fetched.") from error
        raise


def loading(args: argparse.Namespace) -> Loading:
    """The loading options of a parsed command line."""
    return Loading(args.device, args.dtype, args.attention_slicing, args.offload, args.config, args.online)
