"""Benchmarks of erasing: `speed` counts and times our loop and the published one, `pocket` and `grand` erase every
concept, `sequence` one after another, `many` more and more at once, `pairs` one object in one style, `inside` looks
into the U-Net."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies import canvas_commands
from erase.errors import BadInput, DiskFull, disk_full, match
from erase.work import Step, Work, drain


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one benchmark; 0 done, 1 disk full or 2 bad input (one sentence on stderr), 130 interrupted."""
    given = _parser().parse_args(argv)
    try:
        if given.command in canvas_commands.COMMANDS:
            return _on_canvas(given)
        commands = {
            "speed": _speed, "many": _many, "exports": _exports, "gan": _gan, "digits": _digits, "transfer": _transfer,
        }  # fmt: skip
        return commands[given.command](given)
    except BadInput as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except DiskFull as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        if not disk_full(error):
            raise
        print(f"The disk is full ({error}). Free some space, then run the same command again.", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed", help="cost of our loop and of the published one, in one run")
    speed.add_argument(
        "names", nargs="*", metavar="NAME", help="which: esd, advunlearn, doco, unlearndiffatk (default: all)"
    )
    speed.add_argument("--concept", default="Van Gogh", help="what is erased (default: %(default)s)")
    speed.add_argument("--kind", default="style", choices=["style", "object"])
    speed.add_argument("--steps", type=int, default=200, help="gradient steps of both loops (default: %(default)s)")
    speed.add_argument("--lr", type=float, default=5e-5, help="learning rate of both loops (default: %(default)s)")
    speed.add_argument("--outer", type=int, default=2, help="iterations of AdvUnlearn's loops (default: %(default)s)")
    speed.add_argument(
        "--rows", type=int, default=0, help="prompts on which both of AdvUnlearn's edits are attacked (default: none)"
    )
    speed.add_argument("--no-judge", action="store_true", help="leave UA, IRA and CRA of the two edits out")
    canvas_commands.add(commands)
    many = commands.add_parser("many", help="erase 1, 10, 30 concepts at once: what is forgotten, what is kept")
    many.add_argument("--methods", default="uce,nullspace", help="names with commas (default: %(default)s)")
    many.add_argument("--counts", default="1,10,30", help="how many at once, with commas (default: %(default)s)")
    many.add_argument("--images", type=int, default=20, help="that show what is erased, and as many that do not")
    many.add_argument("--steps", type=int, default=12, help="denoising steps of an image (default: %(default)s)")
    many.add_argument("--suite", default="pocket-canvas", help="a suite or a TOML file (default: %(default)s)")
    exports = commands.add_parser("exports", help="every export format: size, ranks, error, difference, seconds")
    exports.add_argument("--concept", default="Van Gogh", help="what is erased (default: %(default)s)")
    exports.add_argument("--kind", default="style", choices=["style", "object"])
    gan = commands.add_parser("gan", help="every GAN method over several seeds, as a table")
    gan.add_argument("--cases", default="all", help="adapt, forms, text, far, feature with commas, or all")
    gan.add_argument("--seeds", default="0,1,2", help="seeds of the erasures, with commas (default: %(default)s)")
    gan.add_argument("--out", required=True, type=Path, help="a folder for one report per case; finished ones stay")
    transfer = commands.add_parser("transfer", help="results of a style transfer beside UnlearnCanvas' own pictures")
    transfer.add_argument("--data", required=True, type=Path, help="the data set: a folder of THEME/OBJECT/1.jpg …")
    transfer.add_argument("--results", required=True, type=Path, help="what a model made of its photographs, likewise")
    transfer.add_argument("--erased", required=True, metavar="STYLE", help="the style that it was to forget")
    transfer.add_argument("--vgg", required=True, type=Path, help="torchvision's weights file of VGG-19")
    transfer.add_argument("--suite", default="unlearncanvas-full", help="themes and objects (default: %(default)s)")
    transfer.add_argument("--device", default="cpu")
    transfer.add_argument("--json", action="store_true", help="one JSON document on stdout")
    for command in (speed, many, exports):
        command.add_argument("--model", default="pocket-sd", help="what `studio erase` takes (default: %(default)s)")
        command.add_argument("--device", default="auto")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")
    digits = commands.add_parser("digits", help="a GAN of digits made and whole classes unlearnt from it")
    digits.add_argument("--digits", default="1,4,8", help="which, with commas (default: %(default)s)")
    digits.add_argument("--steps", type=int, default=8000, help="of the GAN's own training (default: %(default)s)")
    digits.add_argument("--seed", type=int, default=0)
    digits.add_argument("--out", type=Path, help="folder that keeps the GAN and pictures of before and after")
    digits.add_argument("--json", action="store_true", help="one JSON document on stdout")
    gan.add_argument("--render", action="store_true", help="run nothing: write what is there into results and docs")
    gan.add_argument("--model", default="pocket-gan", help="a GAN of faces (default: %(default)s)")
    gan.add_argument("--device", default="auto")
    gan.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _speed(given: argparse.Namespace) -> int:
    # Imported late: help and mistakes in the arguments should not wait for torch.
    from pydantic import ValidationError

    from benchmarks.speed.attack import speed_unlearndiffatk
    from benchmarks.speed.gan import speed_adapt_unlearn
    from benchmarks.speed.judge import speed_judge
    from benchmarks.speed.methods import Plan, speed_advunlearn, speed_doco, speed_esd
    from benchmarks.studies.common import as_json

    known = {
        "esd": speed_esd, "advunlearn": speed_advunlearn, "doco": speed_doco, "unlearndiffatk": speed_unlearndiffatk,
        "judge": speed_judge, "adapt-unlearn": speed_adapt_unlearn,
    }  # fmt: skip
    names = [match(name, known, "benchmark") for name in given.names] or list(known)
    try:
        plan = Plan(
            concept=given.concept, kind=given.kind, steps=given.steps, lr=given.lr, seed=given.seed,
            outer=given.outer, rows=given.rows, suite=None if given.no_judge else "pocket-canvas-small",
        )  # fmt: skip
    except ValidationError as error:
        raise BadInput(f"--{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None
    asked = argparse.Namespace(**{**vars(given), "model": "pocket-gan" if given.model == "pocket-sd" else given.model})
    results = {name: _watched(known[name](_model(asked if name == "adapt-unlearn" else given), plan)) for name in names}
    if given.json:
        print(as_json({name: result.model_dump(mode="json") for name, result in results.items()}))
        return 0
    for name, result in results.items():
        print(f"{name}: {result.note}")
        print(f"  sample-forwards per gradient step        ours {result.ours_forwards:.2f}   "
              f"published {result.published_forwards:.2f}")  # fmt: skip
        print(f"  seconds                                  ours {result.ours_seconds:.1f}   "
              f"published {result.published_seconds:.1f}   ratio {result.wall_ratio:.1f}")  # fmt: skip
        memory = "not measured here" if math.isnan(result.memory_ratio) else f"{result.memory_ratio:.2f}"
        print(f"  memory published / ours                  {memory}")
        if result.loss:
            print("  held-out loss    " + "   ".join(f"{edit} {loss:.5f}" for edit, loss in result.loss.items()))
        for edit, scores in result.scores.items():
            print(f"  {edit:16} " + "   ".join(f"{score} {100 * value:.1f} %" for score, value in scores.items()))
    return 0


def _on_canvas(given: argparse.Namespace) -> int:
    print(canvas_commands.COMMANDS[given.command](given, lambda: _model(given), _watched))
    return 0


def _many(given: argparse.Namespace) -> int:
    from benchmarks.studies.common import as_json
    from benchmarks.studies.many_concepts import erase_many, summary, table
    from benchmarks.suites.suite import load_suite
    from erase.methods.registry import method_names

    names = [match(name, method_names(), "method") for name in given.methods.split(",")]
    for option in ("images", "steps"):
        if getattr(given, option) < 1:
            raise BadInput(f"--{option} {getattr(given, option)} draws nothing; give 1 or more.")
    suite = load_suite(given.suite).model_copy(update={"steps": given.steps})
    counts, rounds = canvas_commands.numbers("counts", given.counts), {name: {} for name in names}
    work = erase_many(_model(given), suite, rounds, counts, images=given.images, seed=given.seed)
    lines = _watched(work)
    print(as_json(summary(lines)) if given.json else table(lines))
    return 0


def _exports(given: argparse.Namespace) -> int:
    from benchmarks.studies.common import as_json
    from benchmarks.studies.exports import exports, table

    found = _watched(exports(_model(given), given.concept, given.kind, seed=given.seed))
    print(as_json(found.model_dump(mode="json")) if given.json else table(found))
    return 0


def _gan(given: argparse.Namespace) -> int:
    from benchmarks.studies.common import as_json
    from benchmarks.studies.gan import chosen, erase_and_judge, finished, summary, table, written

    if given.render:
        print(written(summary(finished(given.out))))
        return 0
    rows, seeds = list(chosen(given.cases)), canvas_commands.numbers("seeds", given.seeds)
    reports = _watched(erase_and_judge(_model(given), rows, seeds, given.out))
    found = summary(reports)
    print(as_json({"rows": found}) if given.json else table(found))
    return 0


def _digits(given: argparse.Namespace) -> int:
    from benchmarks.studies.common import as_json
    from benchmarks.studies.digits import forget_digits, table

    names = given.digits.split(",")
    if wrong := [name for name in names if not (name.isdecimal() and len(name) == 1)]:
        raise BadInput(f"--digits {wrong[0]} is not a digit; give some of 0 to 9 with commas.")
    if given.steps < 1:
        raise BadInput(f"--steps {given.steps} trains nothing; give 1 or more.")
    asked = {"steps": given.steps, "seed": given.seed, "folder": given.out}
    rows = _watched(forget_digits([int(name) for name in names], **asked))
    print(as_json({"rows": rows}) if given.json else table(rows))
    return 0


def _transfer(given: argparse.Namespace) -> int:
    from benchmarks.studies.transfer import Vgg, transfer
    from benchmarks.suites.suite import load_suite

    probe = Vgg(given.vgg, device=given.device)
    found = _watched(transfer(given.data, given.results, load_suite(given.suite), given.erased, probe))
    print(found.json_text() if given.json else found.table())
    return 0


def _model(given: argparse.Namespace) -> Any:
    from generators.loading import load

    return load(given.model, device=given.device)


def _watched(work: Work[Any]) -> Any:
    """Runs a job with one line of progress on stderr."""

    def show(step: Step) -> None:
        print(f"\r{step.stage} {step.done}/{step.total or '?'}\033[K", end="", file=sys.stderr, flush=True)

    try:
        return drain(work, show if sys.stderr.isatty() else None)
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
