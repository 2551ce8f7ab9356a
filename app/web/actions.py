"""What the buttons do: each checks what was asked and puts command lines into the queue. Nothing is computed here."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shutil
import sys
import zipfile
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import generators
from app.cli.parser import parse
from app.knobs import given_knobs
from app.models import source as opened
from app.queue import paths, queue
from app.queue.queue import Task
from app.runs.job import Job
from app.runs.run import Run, is_run, open_run
from app.verbs.erase import read_job
from app.verbs.sample import read_seeds
from app.web import forms, gallery, labels
from benchmarks.attacks.registry import ON_GANS, every_attack
from benchmarks.attacks.registry import build as build_attack
from erase.concept import in_short
from erase.errors import BadInput, match, nearest, plain
from erase.files import replace, write_json
from generators.checkpoints.tensors import header
from generators.loading import DCGAN, GAN_FILES, PICKLES

SINGLE = {"single-file": "model.safetensors", "edit": "edit.safetensors"}  # formats that are one file
METHOD = "uce"  # what erases unless another method is chosen
ROWS = 20  # prompts of an attack
MOST_ROWS, MOST_SEEDS = 1000, 100  # beyond these a page would wait for hours; a terminal takes more
HEADS = ("model_index.json", "job.json", "*.safetensors", "*/*.safetensors")  # of folders of models and runs
MARKED_BY = "adapt-unlearn"  # the method that learns from marks
PREVIEWS = "5"  # seconds between two previews of a run in progress


@dataclass(frozen=True)
class Erasure:
    """An erasure as a form or a program asks for it; an empty `kind` or `anchor` is what the concept's name suggests.

    `concept` and `keep` may each be several names, one a line.
    """

    model: str
    concept: str
    kind: str = ""
    anchor: str = ""
    keep: list[str] | None = None
    method: str = METHOD
    knobs: dict[str, Any] | None = None
    seed: int = 0
    measure: bool = True


def erase(asked: Erasure) -> Task:
    """Erase concepts, one a line, draw before and after, and measure. Answers with the run; equal jobs share one."""
    words = _erase_words(asked)
    run = paths.runs() / _name(parse([*words, "--out", "-"]))
    if (going := _going_on(run)) is not None:
        return going
    title = f"{in_short(lines(asked.concept))} by {asked.method}"
    commands = [[*words, "--resume", "--previews", PREVIEWS, "--out", str(run)], ["look", str(run)]]
    return queue.submit("erase", title, run, [*commands, *([["judge", str(run)]] if asked.measure else [])])


def _erase_words(asked: Erasure) -> list[str]:
    """The command line of an erasure, without its folder."""
    concepts, kept = lines(asked.concept), lines(asked.keep or ())
    if not concepts:
        raise BadInput("What is to be erased? Type a concept, for example Van Gogh.")
    if not forms.text(asked.model):
        raise BadInput("From which model? Choose one, for example pocket-sd.")
    words = ["erase", source(asked.model)]
    words += [word for name in concepts for word in ("--concept", name)]
    words += ["--kind", asked.kind] if asked.kind else []
    words += ["--anchor", asked.anchor] if asked.anchor else []
    words += ["--keep", *kept] if kept else []
    words += ["--method", asked.method, "--seed", str(forms.number(asked.seed, "The seed"))]
    for knob, value in forms.changed(asked.method, asked.knobs or {}).items():
        words += forms.typed(knob, value)
    return words


def erase_marked(
    model: str, concept: str, knobs: dict[str, Any] | None = None, seed: int = 0, measure: bool = True
) -> Task:
    """Erase from a GAN what has been marked in its pictures, by adapt-unlearn. Answers with the run."""
    yes, no = (len(seeds) for seeds in labels.read(model, concept).values())
    if min(yes, no) < labels.LEAST:
        raise BadInput(
            f"{yes} are marked as having {concept}, {no} as not having it; at least {labels.LEAST} of each are needed."
        )
    chosen = {**(knobs or {}), "marks": str(labels.kept(model, concept))}
    return erase(Erasure(model, concept, "attribute", "", None, MARKED_BY, chosen, seed, measure))


def draw_latents(model: str, first: int = 0) -> Task:
    """Draw a page of a GAN's latents, to be marked. Answers with the task."""
    if family(model) != "gan":
        raise BadInput(f"{model} is not a GAN, so it has no latents to mark. Choose pocket-gan, or a GAN's file.")
    start, out = forms.number(0 if first is None else first, "The first seed", 0, 2**62), gallery.folder(model)
    words = ["latents", source(model), "--seeds", f"{start}:{start + gallery.COUNT}", "--out", str(out)]
    parse(words)
    return queue.submit("latents", f"latents of {Path(model).stem}", out, [words])


def family(model: str) -> str:
    """gan or denoiser: what a model is, as far as its name and files tell without loading it."""
    base = opened(source(model)).base if forms.text(model) else ""
    path = Path(base)
    if base in generators.BUNDLED:
        return "gan" if base.endswith("-gan") else "denoiser"
    if path.suffix == ".safetensors" and path.is_file():
        named = any(name.endswith("synthesis.b4.const") for name in header(path)[0])
    else:
        named = path.suffix in GAN_FILES or (path / "generator.safetensors").is_file()
    return "gan" if named else "denoiser"


def adopt(path: str) -> Run:
    """Copy a finished run among the studio's own, under the name it would have there, and draw its pictures."""
    found = open_run(path)
    found.edit()
    folder = paths.runs() / _named(found.job)
    if not is_run(folder):
        making = folder.with_name(f".{folder.name}")
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(found.folder, making)
        making.rename(folder)
        look(folder.name)
    return open_run(folder)


def look(run: str, prompt: str = "", seeds: str = "") -> Task:
    """Draw the rows of a run, or a prompt or seeds of your own, at every strength. Answers with the task."""
    found, prompt, seeds = finished(run), forms.text(prompt), forms.text(seeds)
    words = ["look", str(found.folder)]
    words += ["--prompt", prompt] if prompt else []
    if seeds:
        if (count := len(read_seeds(seeds))) > MOST_SEEDS:
            raise BadInput(f"{count:,} seeds at seven strengths take too long for a page; give at most {MOST_SEEDS}.")
        words += ["--seeds", seeds]
    parse(words)
    return queue.submit("look", f"pictures of {found.job.title}", found.folder, [words])


def measure(run: str) -> Task:
    """Judge a run. Answers with the task."""
    found = finished(run)
    return queue.submit("judge", f"scores of {found.job.title}", found.folder, [["judge", str(found.folder)]])


def strength(run: str) -> Task:
    """Search the strength at which a run erases and spares the rest. Answers with the task."""
    found = finished(run)
    return queue.submit("strength", f"strength of {found.job.title}", found.folder, [["strength", str(found.folder)]])


def attack(run: str, name: str, concept: str = "", budget: str = "", rows: int = ROWS) -> Task:
    """Attack a concept of a run, by default the first it erased. Answers with the task."""
    found, concept, budget = finished(run), forms.text(concept), forms.text(budget)
    words = ["attack", str(found.folder), "--concept", concept or found.job.concepts[0].name, "--attack", name]
    words += ["--rows", str(forms.number(rows, "The number of prompts", 1, MOST_ROWS))]
    words += ["--budget", str(forms.number(budget, "The budget", 1))] if budget else []
    given = given_knobs(parse(words))
    if match(name, every_attack(), "attack") not in ON_GANS:
        build_attack(name, given.pop("budget", None), given)
    return queue.submit("attack", f"{name} on {found.job.title}", found.folder, [words])


def export(run: str, form: str, strength: float = 1.0, dtype: str = "", size: float | None = None) -> Task:
    """Export a run into its own folder, and prove that the export loads. Answers with the task.

    `size` in megabytes is for the formats that come thinner; without it they miss what their format allows.
    """
    from generators.export.export import asked_of
    from generators.export.format import FORMS, refusal

    found = finished(run)
    name = match(form, FORMS, "export format")
    words = ["export", str(found.folder), "--as", name, "--out", str(exported(found, name)), "--force"]
    words += ["--strength", f"{1.0 if strength is None else float(strength):g}"]
    words += ["--dtype", dtype] if dtype else []
    words += ["--size", f"{size}"] if size else []  # an empty number is nought on the page
    args = parse(words)
    asked = asked_of(name, args.strength, args.save_dtype, args.variant, args.error, args.rank, args.size)
    if (why := refusal(name, found.edit(), asked)) is not None:
        raise BadInput(why)
    return queue.submit("export", f"{name} of {found.job.title}", found.folder, [words])


def take_off(run: str, number: int) -> Task:
    """Take one edit off. Answers with the new run, which has all other edits of this one."""
    found = finished(run)
    place = forms.number(number, "The edit to take off", 1)
    if (count := len(found.ledger())) < max(place, 2):
        raise BadInput(f"The ledger of this run has {count} of at least {max(place, 2)} edits; choose another number.")
    folder = paths.runs() / f"{found.folder.name[:100]}-without-{place}"
    words = ["ledger", str(found.folder), "--without", str(place), "--out", str(folder)]
    return queue.submit("ledger", f"{found.job.title} without edit {place}", folder, [words, ["look", str(folder)]])


def cancel(task: str, discard: bool = False) -> str:
    """Stop a task, keeping what it has or not; how it then stands."""
    return queue.cancel(task_of(task), "discard" if discard else "keep")


def pause(task: str) -> str:
    """Stop a task until it is resumed, keeping its place in the line; how it then stands."""
    return queue.cancel(task_of(task), "pause")


def sooner(task: str) -> None:
    """Let a waiting task change places with the one before it."""
    queue.sooner(task_of(task))


def hold(held: bool = True) -> None:
    """Begin no further task, or go on with the line."""
    if held:
        queue.hold()
    else:
        queue.release()


def forget(task: str) -> None:
    """Take a task that is over off the list; its run stays."""
    queue.forget(task_of(task))


def force(task: str) -> str:
    """End a task's process at once."""
    found = task_of(task)
    queue.force(found)
    return found.status


def resume(task: str) -> Task:
    """Go on with a task that was cancelled, failed or lost."""
    return queue.resume(task_of(task))


# What the buttons of the queue's list do to a task; hold and release are for the whole line.
DEEDS: dict[str, Callable[[str], object]] = {
    "sooner": sooner, "pause": pause, "resume": lambda task: resume(task).status, "cancel": cancel, "force": force,
    "discard": lambda task: cancel(task, True), "forget": forget, "hold": lambda _: hold(),
    "release": lambda _: hold(False),
}  # fmt: skip


def do(what: str, task: str) -> str:
    """Do one of DEEDS to a task; how that now stands, or the line."""
    deed = DEEDS[match(what, DEEDS, "button of the queue")]
    return str(deed(task) or "done")


async def neighbours(model: str, concept: str) -> list[str]:
    """The concepts nearest in meaning to the one that is to be erased, by the model's own text encoder; remembered."""
    wanted = lines(concept)
    if not wanted:
        raise BadInput("Type a concept first; its neighbours are proposed from the model's text space.")
    words = ["neighbours", source(model), "--concept", wanted[0]]
    parse(words)
    kept = paths.home() / "neighbours" / f"{hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]}.json"
    if not kept.is_file():
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", *words, "--json", cwd=queue.ROOT, stdout=PIPE, stderr=DEVNULL
        )
        try:
            printed, _ = await child.communicate()
        finally:
            if child.returncode is None:  # whoever asked has gone
                child.kill()
        document = json.loads(printed or "{}")
        if child.returncode:
            raise BadInput(document.get("error", {}).get("message", "The neighbours could not be found."))
        write_json(kept, document)
    return json.loads(kept.read_text(encoding="utf-8"))["neighbours"]


def packed(run: str, form: str) -> Path:
    """Make an export one file to download: itself, or a zip of its folder. Answers with where it is."""
    found = finished(run)
    path = exported(found, form)
    if not path.exists():
        raise BadInput(f"{found.job.title} has not been exported as {form} yet.")
    suffix = path.suffix if path.is_file() else ".zip"
    out = paths.home() / "downloads" / f"{found.folder.name}-{form}{suffix}"
    with replace(out) as part:
        if path.is_file():
            part.write_bytes(path.read_bytes())
        else:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
                for file in sorted(path.rglob("*")):
                    archive.write(file, Path(path.name) / file.relative_to(path))
    return out


def exported(run: Run, form: str) -> Path:
    """Where an export of a run is."""
    folder = run.folder / "exports" / paths.slug(form)
    return folder / SINGLE[form] if form in SINGLE else folder


def source(model: str) -> str:
    """A model as a command line takes it: a run by its name, and whatever a path may be whole."""
    name = forms.text(model)
    if paths.NAME.fullmatch(name) and is_run(paths.run_folder(name)):
        return str(paths.run_folder(name))
    if name.startswith("-"):
        raise BadInput(f"{name!r} is not a model. `studio models` lists those that come with the studio.")
    path = Path(name).expanduser()
    if not path.exists():
        if _bundled(name) is None and name.count("/") != 1:
            raise nearest(name, generators.BUNDLED, "model")
        return name
    if path.is_file() and path.suffix not in (*GAN_FILES, *PICKLES, ".tar"):
        raise BadInput(f"{path} is not a file of weights. Give a pipeline folder, a run, or a .safetensors file.")
    if path.is_dir() and not any(any(path.glob(name)) for name in HEADS):
        raise BadInput(f"{path} holds neither a model nor a run: there is none of {', '.join(HEADS)} in it.")
    return str(path.resolve())


def _bundled(name: str) -> str | None:
    """The bundled model that a name spells, if it spells one."""
    return next((known for known in (*generators.BUNDLED, DCGAN) if plain(known) == plain(name)), None)


def finished(run: str) -> Run:
    """A run of the studio with an edit; BadInput for one that has none yet, and for a name that is none."""
    if not run:
        raise BadInput("There is no run yet. Erase something first, or choose a run above.")
    found = open_run(paths.run_folder(run))
    if not (found.folder / "edit.safetensors").is_file():
        raise BadInput(f"{found.job.title} is {found.status} and has no edit yet. Wait for it, or resume it.")
    return found


def lines(text: str | Sequence[str] | None) -> list[str]:
    """One name a line, without empty ones; a comma is part of a name, as it is at the command line."""
    parts = text.splitlines() if isinstance(text, str) else text or ()
    return [part.strip() for part in parts if part.strip()]


def _name(args: argparse.Namespace) -> str:
    """The folder of a run: equal jobs have one, so that starting a job twice opens the first."""
    return _named(read_job(args, opened(args.source)))


def _named(job: Job) -> str:
    parts = (Path(job.model).stem, "-".join(concept.name for concept in job.concepts), job.method)
    return "-".join([*map(paths.slug, parts), job.hash[:8]])


def task_of(name: str) -> Task:
    """A task by its id, or the newest one of a run by the run's name."""
    made = [task for task in queue.tasks() if name in (task.id, task.run.name) and name]
    if not made:
        raise BadInput(f"{name!r} is neither a task nor a run that has one. The queue lists all of them.")
    return next((task for task in reversed(made) if task.status not in queue.OVER), made[-1])


def _going_on(run: Path) -> Task | None:
    """The task that makes this run, if it is not over or has made it."""
    for task in queue.tasks():
        if task.run == run and task.kind == "erase":
            if task.status in ("paused", "cancelled", "failed", "lost"):
                return queue.resume(task)
            return task
    return None
