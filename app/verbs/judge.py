"""`studio judge`: scores of a model, or of a run beside the unedited model's, with the before/after grid."""

from __future__ import annotations

import argparse

from app.answer import Answer
from app.files import write_text
from app.models import load, loading, source
from app.progress import follow
from app.runs import Run
from benchmarks.gallery import draw_grid
from benchmarks.judge import judge as judged
from benchmarks.metrics.cost import Cost
from benchmarks.report import Report
from benchmarks.suite import Suite, suite
from erase.edit import Edit
from erase.model import Denoiser

MODEL_SUITE, RUN_SUITE = "pocket-canvas", "pocket-canvas-small"  # the whole grid once; a coffee break


def judge(args: argparse.Namespace) -> Answer:
    """Score a model and print it, or score a run and write its report.json and grid.png."""
    what = source(args.source)
    edit = what.edit()
    canvas = suite(args.suite or (MODEL_SUITE if edit is None else RUN_SUITE))
    model = load(what.base, loading(args))
    if what.run is None or edit is None:
        report = follow(judged(model, edit, suite=canvas), f"judging {model.name}")
        return Answer(report.model_dump(mode="json"), report.table())
    report = judge_run(what.run, model, edit, canvas)
    return Answer(
        report.model_dump(mode="json"),
        f"{report.table()}\nReport: {what.run.folder / 'report.json'}\nPictures: {what.run.folder / 'grid.png'}",
    )


def judge_run(run: Run, model: Denoiser, edit: Edit, canvas: Suite) -> Report:
    """Score a run on a suite and leave report.json and grid.png in its folder."""
    state = run.state
    cost = Cost(state["seconds"], state.get("peak_memory_bytes") or float("nan"), state.get("memory_probe", ""))
    job = {**run.job.model_dump(mode="json"), "suite": canvas.name, "run": str(run.folder)}
    report = follow(judged(model, edit, suite=canvas, cost=cost, job=job), f"judging {run.job.title}")
    write_text(run.folder / "report.json", report.json_text() + "\n")
    follow(draw_grid(model, edit, run.folder / "grid.png", canvas=canvas, report=report), "drawing the grid")
    return report
