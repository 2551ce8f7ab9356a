"""`studio judge`: scores of a model, or of a run beside the unedited model's, with the before/after grid."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.answer import Answer
from app.cli.options import PROBES, SOURCE, Parser, number, unused
from app.cli.progress import follow
from erase.errors import BadInput, plain
from erase.files import require_writable, write_text

if TYPE_CHECKING:
    from app.models import Source
    from app.runs.run import Run
    from benchmarks.metrics.cost import Cost
    from benchmarks.report import Report
    from benchmarks.suites.gan_suite import GanSuite
    from benchmarks.suites.suite import Suite
    from erase.edit import Edit
    from erase.model import Denoiser, Gan

MODEL_SUITE, RUN_SUITE = "pocket-canvas", "pocket-canvas-small"  # the whole grid once; a coffee break
GAN_SUITE = "pocket-faces"


def judge_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="MODEL|RUN", help=SOURCE)
    suites = "what to draw and score (default: pocket-canvas for a MODEL, pocket-canvas-small for a RUN)"
    parser.add_argument("--suite", metavar="NAME|FILE", help=suites)
    parser.add_argument("--probe", metavar="NAME|DIR", help=PROBES)
    data = "measure FID against this data set, laid out as THEME/OBJECT/1.jpg (default: the unedited model's pictures)"
    parser.add_argument("--data", metavar="DIR", help=data)
    until = "of a RUN: draw seed by seed, until UA, IRA and CRA are each known to ± this share (such as 0.02)"
    parser.add_argument("--until", type=number(float, 0, 1, above=True), metavar="SHARE", help=until)


def judge(args: argparse.Namespace) -> Answer:
    """Score a model and print it, or score a run and write its report.json and grid.png.

    Of several processes that `accelerate launch` has started one writes and speaks.
    """
    from app.models import loaded, source
    from benchmarks.judging.distributed import team
    from benchmarks.judging.judge import judge as judged
    from benchmarks.judging.reference import whole
    from benchmarks.suites.gan_suite import gan_suite
    from benchmarks.suites.suite import load_suite

    if not team().leads:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    what = source(args.source)
    edit = what.edit()
    if edit is None:
        unused(args, f"{args.source} has no edit, and a model alone is drawn once and whole", until=None, data=None)
    if what.run is not None:
        require_writable(what.run.folder)
    faces = _faces(args.suite, what.base)
    suite = (
        None
        if faces
        else load_suite(args.suite or (MODEL_SUITE if edit is None else RUN_SUITE), probe=args.probe, data=args.data)
    )
    if suite is not None and suite.data is not None:
        whole(Path(suite.data), suite)
    model = loaded(what, args)
    if hasattr(model, "synthesis"):
        unused(args, f"{model.name} is a GAN, which its own suite reads", probe=None, data=None, until=None)
        return _judge_gan(what, model, edit, faces or gan_suite(args.suite or GAN_SUITE))
    if suite is None:
        raise BadInput(f"Suite {args.suite} is for GANs and {model.name} is none; try --suite {RUN_SUITE}.")
    if what.run is None or edit is None:
        report = follow(judged(model, edit, suite=suite), f"judging {model.name}")
        return Answer(report.model_dump(mode="json"), report.table())
    return _told(what.run, judge_run(what.run, model, edit, suite, args.until))


def _faces(name: str | None, base: str) -> GanSuite | None:
    """The suite for GANs that is asked for by name, or by naming the bundled GAN alone."""
    from benchmarks.suites.gan_suite import gan_suite, gan_suite_names

    if name is None:
        return gan_suite(GAN_SUITE) if base == "pocket-gan" else None
    return gan_suite(name) if base == "pocket-gan" or plain(name) in map(plain, gan_suite_names()) else None


def _judge_gan(what: Source, model: Gan, edit: Edit | None, faces: GanSuite) -> Answer:
    from benchmarks.judging.judge_gan import judge_gan
    from benchmarks.pages.face_grid import draw_faces

    if what.run is None or edit is None:
        report = follow(judge_gan(model, suite=faces), f"judging {model.name}")
        return Answer(report.model_dump(mode="json"), report.table())
    run = what.run
    job = {**run.job.model_dump(mode="json"), "suite": faces.name, "run": str(run.folder)}
    report = follow(judge_gan(model, edit, faces, cost=_cost(run), job=job), f"judging {run.job.title}")
    write_text(run.folder / "report.json", report.json_text() + "\n")
    follow(draw_faces(model, edit, run.folder / "grid.png", faces, report), "drawing the grid")
    return _told(run, report)


def _told(run: Run, report: Report) -> Answer:
    return Answer(
        report.model_dump(mode="json"),
        f"{report.table()}\nReport: {run.folder / 'report.json'}\nPictures: {run.folder / 'grid.png'}",
    )


def _cost(run: Run) -> Cost:
    from benchmarks.metrics.cost import Cost

    state = run.state
    return Cost(state["seconds"], state.get("peak_memory_bytes") or float("nan"), state.get("memory_probe", ""))


def judge_run(run: Run, model: Denoiser, edit: Edit, suite: Suite, until: float | None = None) -> Report:
    """Score a run on a suite and leave report.json and grid.png in its folder."""
    from benchmarks.judging.distributed import team
    from benchmarks.judging.judge import JudgeSettings
    from benchmarks.judging.judge import judge as judged
    from benchmarks.pages.gallery import draw_grid

    job = {**run.job.model_dump(mode="json"), "suite": suite.name, "run": str(run.folder)}
    work = judged(model, edit, suite=suite, settings=JudgeSettings(until=until), cost=_cost(run), job=job)
    report = follow(work, f"judging {run.job.title}")
    if not team().leads:
        return report
    write_text(run.folder / "report.json", report.json_text() + "\n")
    follow(draw_grid(model, edit, run.folder / "grid.png", suite=suite, report=report), "drawing the grid")
    return report
