"""`studio erase`, `resume` and `reproduce`: a job, its RUN folder, and the edit it ends in."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.answer import Answer
from app.cli.options import KINDS, SECONDS, SEED, SOURCE, Parser, value
from app.cli.progress import duration, follow
from app.knobs import add_knobs, given_knobs
from erase.errors import BadInput, match
from erase.files import size
from erase.methods.registry import FOLDERS, build, method_names

if TYPE_CHECKING:
    from app.models import Loading, Source
    from app.runs.job import Job
    from app.runs.run import Run
    from erase.edit import Edit
    from erase.model import Generator


def erase_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="MODEL|RUN", help=SOURCE + " (erasing from a RUN stacks on its edit)")
    parser.add_argument(
        "--concept",
        action="append",
        required=True,
        metavar="NAME",
        help="what to erase; repeat it for more, for a comma is part of a name",
    )
    kinds = "what the concepts are (default: what the name is in the bundled vocabulary, else object)"
    parser.add_argument("--kind", metavar="|".join(KINDS), help=kinds)
    parser.add_argument("--anchor", metavar="TEXT", help="what to draw instead (default: by kind)")
    parser.add_argument(
        "--keep",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME",
        help="concepts to protect, of the kind of what is erased unless said, as style:Monet",
    )
    parser.add_argument("--method", required=True, metavar="METHOD", help=f"one of: {', '.join(method_names())}")
    parser.add_argument("--preset", metavar="NAME", help="named settings of the method")
    parser.add_argument("--seed", type=SEED, default=0, metavar="N", help="decides every random draw (default: 0)")
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to make")
    parser.add_argument("--resume", action="store_true", help="go on when --out holds this job unfinished")
    parser.add_argument("--save-every", type=SECONDS, metavar="SECONDS", help="time between snapshots (default: 30)")
    parser.add_argument("--previews", type=SECONDS, metavar="SECONDS", help="time between pictures of the work (off)")
    method = value(parser.words, "--method")
    if method:
        add_knobs(parser, match(method, method_names(), "method"))
    else:
        parser.epilog = "Every method has knobs of its own: `studio erase --method esd --help` adds them to this list."


def erase(args: argparse.Namespace) -> Answer:
    """Erase concepts into a RUN folder; the same finished job is opened instead of run again."""
    from app.concepts import already_erased
    from app.models import loaded, source
    from app.runs.erase import occupied, prepare
    from app.runs.run import claimed

    what = source(args.source)
    job = read_job(args, what)
    folder = Path(args.out)
    with claimed(folder):
        run = occupied(folder, job, args.resume)
        model = loaded(what, args)
        if run is not None and run.status == "done":
            run.check_base(model)
            return _summary(run, run.edit(), f"{folder} already holds this very job, finished.")
        if run is None:
            if args.resume:
                print(f"There is nothing to resume in {folder}; starting.", file=sys.stderr)
            for sentence in already_erased(job.concepts, (edit.about for edit in what.ledger())):
                print(sentence, file=sys.stderr)
            record = {"typed": args.typed, "loading": vars(what.loading(args))}
            run = prepare(folder, job, model, what.ledger(), record)
        return _summary(run, work_on(run, model, args.save_every, args.previews), began=args.began)


def resume_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN", help="the folder of the run")
    parser.add_argument("--save-every", type=SECONDS, metavar="SECONDS", help="time between snapshots (default: 30)")


def resume(args: argparse.Namespace) -> Answer:
    """Go on with an unfinished run from its newest snapshot, with the model loaded as the job says."""
    from app.models import load
    from app.runs.run import open_run

    run = open_run(args.source)
    if run.status == "done":
        return _summary(run, run.edit(), f"{run.folder} is finished; there is nothing to resume.")
    require_method(run)
    return _summary(run, work_on(run, load(run.job.model, as_begun(run, args)), args.save_every), began=args.began)


def reproduce_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN", help="the run to repeat")
    parser.add_argument("--out", required=True, metavar="RUN", help="the folder of the new run")


def reproduce(args: argparse.Namespace) -> Answer:
    """Run a finished run's job again in another folder; exit 1 with the differences when the edits are not equal."""
    from app.models import load
    from app.runs.erase import occupied, prepare
    from app.runs.run import claimed, open_run

    run = open_run(args.source)
    require_method(run)
    before = run.edit()
    if "approximate" in before.about:
        raise BadInput(f"{run.folder} cannot be made again from its job: an edit it was made on has been taken off.")
    folder = Path(args.out)
    if folder.resolve() == run.folder.resolve():
        raise BadInput("--out must be another folder than the run that is to be reproduced.")
    with claimed(folder):
        again = occupied(folder, run.job, resume=True)
        model = load(run.job.model, as_begun(run, args))
        run.check_base(model)
        if again is None:
            record = {"typed": args.typed, "reproduces": str(run.folder)}
            again = prepare(folder, run.job, model, run.parents(), record)
        after = again.edit() if again.status == "done" else work_on(again, model)
    same = before.hash == after.hash
    apart = largest_difference(before, after)
    circumstances = [
        f"{name} was {run.record.get(name)}, is {again.record.get(name)}"
        for name in ("versions", "device", "gpu", "threads", "platform", "commit", "dirty")
        if run.record.get(name) != again.record.get(name)
    ]
    document = {
        "version": 1, "status": "done" if same else "failed", "identical": same, "max_difference": apart,
        "edits": [before.hash, after.hash], "runs": [run.folder, folder], "differs": circumstances,
    }  # fmt: skip
    if same:
        return Answer(document, f"Reproduced: the edit in {folder} is bit-identical to the one in {run.folder}.")
    document["error"] = {"kind": "not-reproduced", "message": f"the edits differ by up to {apart:.3g}"}
    why = "\n".join(circumstances) or "Nothing that is recorded differs."
    return Answer(document, f"Not reproduced: the edits differ by up to {apart:.3g}.\n{why}", code=1)


def require_method(run: Run) -> None:
    """BadInput, with the variable that names plug-ins' folders, when the method of a run is not here."""
    if run.job.method not in method_names():
        raise BadInput(
            f"{run.folder} was made by the method {run.job.method!r}, which does not come with the studio. Set "
            f"{FOLDERS} to the folder of its file, then run the same command again."
        )


def read_job(args: argparse.Namespace, what: Source) -> Job:
    """The Job a command line asks for, every knob spelled out; BadInput for anything that cannot be meant.

    What is erased from a run is erased from its model as that run loaded it.
    """
    from app.concepts import check_synonyms, concepts, kept
    from app.runs.job import Job
    from erase.provenance import check_request

    method = match(args.method, method_names(), "method")
    built = build(method, args.preset, given_knobs(args))
    erased = concepts(what.base, args.concept, args.kind, args.anchor)
    keep = kept(what.base, args.keep, erased)
    check_request(erased, keep)
    check_synonyms(what.base, erased, keep)
    asked = what.loading(args)
    return Job(
        model=what.base,
        dtype=asked.dtype,
        config=None if asked.config is None else str(Path(asked.config).resolve()),
        parents=tuple(parent.hash for parent in what.ledger()),
        concepts=erased,
        keep=keep,
        method=method,
        knobs=built.model_dump(mode="json"),  # type: ignore[attr-defined]
        seed=args.seed,
    )


def work_on(run: Run, model: Generator, save_every: float | None = None, previews: float | None = None) -> Edit:
    """Drain a run's work with progress; when it is stopped, say how to go on."""
    from app.runs.erase import SAVE_EVERY, erase_in

    every = SAVE_EVERY if save_every is None else save_every
    try:
        return follow(
            erase_in(run, model, lambda sentence: print(sentence, file=sys.stderr), every, previews),
            f"erasing {run.job.title}",
        )
    except KeyboardInterrupt:
        steps = run.state["steps"]
        raise KeyboardInterrupt(
            f"Cancelled after {steps} steps; the model is as it was. `studio resume {run.folder}` goes on from there."
        ) from None


def largest_difference(one: Edit, other: Edit) -> float:
    """The largest difference of any weight; infinite when the edits do not change the same weights."""
    shapes = [{name: tuple(delta.shape) for name, delta in edit.deltas.items()} for edit in (one, other)]
    if shapes[0] != shapes[1]:
        return float("inf")
    return max((float((one.deltas[name] - other.deltas[name]).abs().max()) for name in one.deltas), default=0.0)


def as_begun(run: Run, args: argparse.Namespace) -> Loading:
    """The loading options, except those that belong to the job: they must be as they were."""
    from app.models import Loading

    dtype, config = run.record["dtype"], run.job.config
    return Loading(args.device, dtype, args.attention_slicing, args.offload, config, args.online)


def _summary(run: Run, edit: Edit, first: str | None = None, began: float | None = None) -> Answer:
    state = run.state
    document: dict[str, Any] = {
        "version": 1, "status": state["status"], "run": run.folder, "job": run.job.model_dump(mode="json"),
        "edit": {"path": run.folder / "edit.safetensors", "hash": edit.hash, "storage_bytes": edit.storage_bytes,
                 "tensors": len(edit.deltas)},
        "steps": state["steps"], "seconds": state["seconds"], "peak_memory_bytes": state.get("peak_memory_bytes"),
    }  # fmt: skip
    whole = "" if began is None else f"; with loading and saving {duration(time.monotonic() - began)}"
    lines = [
        first or f"Erased {run.job.title} in {duration(state['seconds'])}, {state['steps']} steps{whole}.",
        f"The edit changes {len(edit.deltas)} tensors ({size(edit.storage_bytes)}): {run.folder / 'edit.safetensors'}",
        f"Next: studio judge {run.folder}",
    ]
    return Answer(document, "\n".join(lines))
