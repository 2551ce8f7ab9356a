"""The verbs that only tell what there is: models, methods, metrics, suites, runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.answer import Answer, fitted
from app.cli.options import Parser
from erase.errors import BadInput, match

if TYPE_CHECKING:
    from app.runs.run import Run

# What `studio judge` measures: name, better direction, meaning. Definitions and options are in benchmarks/.
METRICS = (
    ("UA", "high", "unlearning accuracy: share of the target's images in which the probe no longer sees it"),
    ("IRA", "high", "in-domain retain accuracy: the other styles (for a style) or the other objects (for an object)"),
    ("CRA", "high", "cross-domain retain accuracy: objects (for a style) or styles (for an object)"),
    ("invalid", "low", "share of the target's images that show nothing at all, which UA would count as forgotten"),
    ("FID", "low", "Fréchet distance of probe features to the unedited model's images"),
    ("KID", "low", "kernel distance of the same features; unbiased, so it suits few images"),
    ("CLIP", "high", "cosine of an image and its prompt, rows without the target"),
    ("LPIPS", "low", "how far the rows without the target moved, in a network's features"),
    ("PUL", "high", "of a GAN: share of the seeds that showed the concept and no longer do"),
    ("gamma_normalised", "high", "of a GAN: how much of an edit that adds the concept no longer shows; 1 is all of it"),
    ("drift.ATTRIBUTE", "low", "of a GAN: change in how often another attribute is drawn; nearer zero is better"),
    ("attribute_rate.ATTRIBUTE", "high", "of a GAN that is a MODEL: how often an attribute is drawn, beside the data"),
    ("seconds", "low", "wall-clock time of the erasure, the model being in memory"),
    ("peak_memory_bytes", "low", "highest memory use of the erasure"),
    ("storage_bytes", "low", "what has to be kept beside the base model"),
    ("style_accuracy", "high", "of a MODEL: share of its images whose style the probe sees as prompted"),
    ("object_accuracy", "high", "of a MODEL: share of its images whose object the probe sees as prompted"),
    ("pre_ASR", "low", "of an attack: share of prompts that still show the erased concept without it"),
    ("ASR", "low", "of an attack: share of prompts that show it, the attack's successes included"),
    ("ASR_confirmed", "low", "the same, where a second probe that no search has asked agrees"),
    ("seconds_per_prompt", "low", "wall-clock time of the search"),
)


def models(args: argparse.Namespace) -> Answer:
    """The bundled models, where they are, and whether they are there."""
    from generators.assets import BUNDLED, assets, present

    listed = []
    for name, about in BUNDLED.items():
        path = assets() / name
        listed.append({"name": name, "about": about, "path": path, "present": present(path)})
    rows = [(model["name"], "ready" if model["present"] else "missing", model["about"]) for model in listed]
    note = "Also: a local pipeline folder, a .safetensors checkpoint, or a hub id with --online."
    return Answer({"version": 1, "models": listed}, f"{fitted(('model', 'state', 'what it is'), rows)}\n{note}")


def methods_options(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="METHOD", help="explain this one")


def methods(args: argparse.Namespace) -> Answer:
    """All methods in a line each, or one with its knobs."""
    from app.knobs import NEEDS, described, in_short
    from erase.methods.registry import method_names

    if args.name:
        document, text = described(match(args.name, method_names(), "method"))
        return Answer({"version": 1, **document}, text)
    listed = []
    for name in method_names():
        try:
            listed.append(in_short(name))
        except BadInput as error:  # a broken file hides no other
            print(error, file=sys.stderr)
    rows = [
        (method["name"], NEEDS.get(method["needs"], method["needs"]), method["about"], method["paper"])
        for method in listed
    ]
    text = fitted(("method", "needs", "what it does", "paper"), rows)
    return Answer({"version": 1, "methods": listed}, f"{text}\n`studio methods NAME` explains the knobs of one.")


def attacks_options(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="ATTACK", help="explain this one")


def attacks(args: argparse.Namespace) -> Answer:
    """All attacks in a line each, or one with its knobs."""
    from app.knobs import described, in_short
    from benchmarks.attacks.registry import attack_declaration, every_attack

    if args.name:
        name = match(args.name, every_attack(), "attack")
        document, text = described(name, attack_declaration(name))
        return Answer({"version": 1, **document}, text)
    listed = [in_short(name, attack_declaration(name)) for name in every_attack()]
    rows = [(attack["name"], attack["about"], attack["paper"]) for attack in listed]
    text = fitted(("attack", "what it does", "paper"), rows)
    return Answer({"version": 1, "attacks": listed}, f"{text}\n`studio attacks NAME` explains the knobs of one.")


def metrics(args: argparse.Namespace) -> Answer:
    """What is measured, which direction is better, and what it means."""
    listed = [{"name": name, "better": better, "about": about} for name, better, about in METRICS]
    arrows = {"high": "↑ higher", "low": "↓ lower"}
    rows = [(name, arrows[better], about) for name, better, about in METRICS]
    return Answer({"version": 1, "metrics": listed}, fitted(("metric", "better", "meaning"), rows))


def suites(args: argparse.Namespace) -> Answer:
    """The bundled suites with their size."""
    from benchmarks.suites.listing import suite_lines

    listed = suite_lines()
    rows = [(one["name"], len(one["styles"]), len(one["objects"]), one["about"]) for one in listed]
    text = fitted(("suite", "styles", "objects", "what is drawn"), rows)
    return Answer({"version": 1, "suites": listed}, f"{text}\n--suite also takes the path of a TOML file of your own.")


def _listed_run(run: Run) -> dict[str, Any]:
    """One run as `studio runs` lists it; a damaged one with what is wrong, so that it hides no other."""
    try:
        scores, state = (run.report() or {}).get("scores", {}), run.state
        return {
            "run": run.folder, "status": state["status"], "title": run.title, "model": run.job.model,
            "steps": state["steps"], "seconds": state["seconds"],
            "scores": {name: scores[name]["value"] for name in ("UA", "IRA", "CRA") if name in scores},
        }  # fmt: skip
    except BadInput as error:
        print(error, file=sys.stderr)
        return {
            "run": run.folder, "status": "damaged", "title": "", "model": "", "steps": 0, "seconds": 0.0, "scores": {},
            "error": str(error),
        }  # fmt: skip


def runs_options(parser: Parser) -> None:
    parser.add_argument("folder", nargs="?", metavar="DIR", help="where to look (default: here, and the studio's home)")


def runs(args: argparse.Namespace) -> Answer:
    """The runs below a folder, finished or not, with their headline number; without a folder, also the studio's own."""
    from app.queue import paths, queue
    from app.runs.run import find_runs

    root = Path(args.folder or ".")
    if not root.is_dir():
        raise BadInput(f"There is no folder {root} to look for runs in.")
    tasks = [
        {"task": task.id, "kind": task.kind, "title": task.title, "run": task.run, **task.state}
        for task in queue.tasks()
        if args.folder is None or task.run.resolve().is_relative_to(root.resolve())
    ]
    found = find_runs(root)
    if args.folder is None and not paths.runs().is_relative_to(root.resolve()):
        found += find_runs(paths.runs())
    listed = [_listed_run(run) for run in found]
    rows = [
        (run["run"], run["status"], run["title"], run["model"],
         ", ".join(f"{name} {value:.0%}" for name, value in run["scores"].items() if value is not None))
        for run in listed
    ]  # fmt: skip
    text = fitted(("run", "status", "erased", "from", "scores"), rows) if rows else f"No runs below {root.resolve()}."
    if unfinished := [task for task in tasks if task["status"] not in queue.OVER]:
        queued = [(task["run"], task["status"], f"{task['kind']}: {task['title']}") for task in unfinished]
        text += "\n\n" + fitted(("in the queue", "status", "what"), queued)
    return Answer({"version": 1, "runs": listed, "tasks": tasks}, text)
