"""`studio attack` of a GAN: searches its codes for what it is said to have forgotten."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.cli.answer import Answer
from app.cli.progress import follow
from app.knobs import given_knobs
from erase.errors import BadInput, plain
from erase.files import make_folder, write_text


def attack_gan(args: argparse.Namespace) -> Answer:
    """Attack a concept of a GAN or of a run on one, and keep the report beside the run."""
    from app.models import load, loading, source
    from benchmarks.attacks.gan.run import attack_gan as attacked
    from benchmarks.attacks.gan.run import build
    from benchmarks.judging.judge_gan import GAN_SUITE
    from benchmarks.report import Report
    from benchmarks.suites.gan_suite import gan_suite, gan_suite_names
    from erase.model import Gan, require

    knobs = given_knobs(args)
    how = build(args.attack, knobs.pop("budget", None), knobs)
    if args.rows < 1:
        raise BadInput(f"--rows {args.rows} will not do; it takes a whole number from 1 on.")
    if args.prompts is not None:
        raise BadInput(f"{args.attack} searches a GAN's codes and reads no prompts; leave --prompts out.")
    faces = gan_suite(args.suite if plain(args.suite) in map(plain, gan_suite_names()) else GAN_SUITE)
    what = source(args.source)
    edit, model = what.edit(), load(what.base, loading(args))
    require(model, Gan, args.attack)
    judged = None if what.run is None else what.run.folder / "report.json"
    report = follow(
        attacked(
            model, edit, args.concept, how, suite=faces, count=args.rows, seed=args.seed,
            beside=Report.read(judged) if judged is not None and judged.is_file() else None,
            job={"typed": args.typed, "source": args.source},
        ),
        f"attacking {args.concept}",
    )  # fmt: skip
    folder = Path(args.out) if args.out is not None else None
    if folder is None and what.run is not None:
        folder = (
            what.run.folder
            / "attacks"
            / f"{report.job['attack']}-{report.job['concept']}-{how.budget}".replace(" ", "_")
        )
    if folder is None:
        return Answer(report.model_dump(mode="json"), report.table())
    make_folder(folder)
    write_text(folder / "report.json", report.json_text() + "\n")
    return Answer(report.model_dump(mode="json"), f"{report.table()}\nReport: {folder / 'report.json'}")
