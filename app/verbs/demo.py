"""`studio demo`: the whole journey on the bundled model: erase a style, judge it, draw it, carry it away."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from app.cli.answer import Answer
from app.cli.options import Parser
from app.cli.progress import duration, follow
from erase.files import size
from erase.methods.registry import build

MODEL, CONCEPT, KEEP = "pocket-sd", "Van_Gogh", ("Watercolor", "Crayon", "Sketch", "Cartoon")
METHOD, PRESET = "uce", "style"


def demo_options(parser: Parser) -> None:
    parser.add_argument("--out", default="demo", metavar="DIR", help="where everything goes (default: %(default)s)")


def demo(args: argparse.Namespace) -> Answer:
    """Erase, judge, draw and export into one folder; a second call opens the finished run and goes on from there."""
    from app.concepts import concepts
    from app.models import load, loading
    from app.runs.erase import occupied, prepare
    from app.runs.job import Job
    from app.runs.run import claimed
    from app.verbs.erase import work_on
    from app.verbs.export import evidence_of
    from app.verbs.judge import RUN_SUITE, judge_run
    from benchmarks.suites.suite import load_suite
    from generators.export.export import export

    began = time.monotonic()
    out = Path(args.out)
    say(f"This erases the style Van Gogh from {MODEL}, a small Stable Diffusion that comes with the studio.")
    job = Job(
        model=MODEL,
        dtype=args.dtype,
        concepts=concepts(MODEL, [CONCEPT], None),
        keep=concepts(MODEL, KEEP, None),
        method=METHOD,
        knobs=build(METHOD, PRESET).model_dump(mode="json"),  # type: ignore[attr-defined]
    )
    with claimed(out / "run"):
        run = occupied(out / "run", job, resume=True)
        model = load(MODEL, loading(args))
        if run is not None and run.status == "done":
            say(f"1/3 {out / 'run'} already holds the erased style; it is judged again.")
            edit = run.edit()
        else:
            say(f"1/3 Erasing: {METHOD} changes only the layers that read the prompt.")
            run = run or prepare(out / "run", job, model, (), {"typed": args.typed})
            edit = work_on(run, model)
    say("2/3 Judging: the same prompts and seeds before and after, read by a classifier the erasing does not use.")
    report = judge_run(run, model, edit, load_suite(RUN_SUITE))
    say("3/3 Exporting: the erased model as a folder that any diffusers program opens.")
    exported = follow(export(model, edit, out / "pipeline", force=True, evidence=evidence_of(run)), "exporting")
    document = {
        "version": 1, "status": "done", "run": run.folder, "grid": run.folder / "grid.png", "pipeline": exported.path,
        "max_difference": exported.max_difference, "seconds": time.monotonic() - began,
        "scores": report.model_dump(mode="json")["scores"],
    }  # fmt: skip
    text = f"""
{report.table()}

UA: Van Gogh prompts whose style is gone. IRA and CRA: how well the other styles, and the objects, survived.
The edit      {run.folder / "edit.safetensors"} ({size(edit.storage_bytes)})
The pictures  {run.folder / "grid.png"} (before and after, same seeds)
The numbers   {run.folder / "report.json"}
The model     {exported.path} (opened by stock diffusers; largest pixel difference {exported.max_difference:.2g})
All this took {duration(time.monotonic() - began)}.

Try next
  studio serve --show {run.folder}    (the same on a page, with a strength slider)
  studio sample {run.folder} --prompt "A Cats image in Van Gogh style." --strength 0.5 --out half.png
  studio erase {MODEL} --concept Cats --keep Dogs --method uce --out runs/cats
  studio methods"""
    return Answer(document, text.strip())


def say(sentence: str) -> None:
    """One line for people, beside the answer."""
    print(sentence, file=sys.stderr, flush=True)
