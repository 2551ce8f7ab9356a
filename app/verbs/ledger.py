"""`studio ledger`: the edits stacked in a run, oldest first; and the same run without one of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.answer import Answer, table
from app.cli.options import Parser
from erase.errors import BadInput, nearest, plain
from erase.files import require_space
from erase.methods.registry import method

if TYPE_CHECKING:
    from app.runs.job import Job
    from app.runs.run import Run
    from app.runs.stored import Stored
    from erase.edit import Edit

SHORTEST_HASH = 6  # digits of a hash that are taken for one


def ledger_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--without", metavar="NAME|HASH|NUMBER", help="the edit to take off")
    parser.add_argument("--out", metavar="RUN", help="the folder of the new run that does without it")


def ledger(args: argparse.Namespace) -> Answer:
    """List the edits of a run, or write another run without one of them."""
    from app.runs.run import open_run

    run = open_run(args.source)
    if args.without is None:
        if args.out is not None:
            raise BadInput("--out is for the run without an edit; say which one with --without NAME, HASH or NUMBER.")
        edits = run.listed()
        document = {"version": 1, "status": "done", "run": run.folder, "edits": _entries(edits)}
        return Answer(document, _listed(edits))
    edits = run.ledger()
    if args.out is None:
        raise BadInput("Where to? Add --out RUN for the run without that edit.")
    gone = found(edits, args.without)
    if len(edits) == 1:
        raise BadInput(f"{run.folder} holds this one edit only; without it there is just {run.job.model}.")
    folder = Path(args.out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not an empty folder. Choose another --out.")
    left = [*edits[:gone], *edits[gone + 1 :]]
    if gone == len(left):
        how = "It was the newest: the others are as they were before it."
        made = _without_work(run, left, folder, args.typed)
    elif _joint(edits):
        how = "The others were solved again together, as if it had never been there."
        made = _solved_again(run, left, folder, args)
    else:
        how = f"Approximate: what was erased later was made while {_names(edits[gone])} was erased too."
        left = [*left[:gone], *(_marked(edit, how) for edit in left[gone:])]
        made = _without_work(run, left, folder, args.typed)
    edit = made.edit()
    document = {
        "version": 1, "status": "done", "run": folder, "took_off": _entry(gone, edits[gone]),
        "approximate": "approximate" in edit.about, "how": how, "edits": _entries(made.ledger()),
        "edit": {"path": folder / "edit.safetensors", "hash": edit.hash, "storage_bytes": edit.storage_bytes,
                 "tensors": len(edit.deltas)},
    }  # fmt: skip
    text = f"Took off {_names(edits[gone])}. {how}\n{_listed(made.ledger())}\nNext: studio judge {folder}"
    return Answer(document, text)


def found(edits: Sequence[Edit], wanted: str) -> int:
    """The place of the edit with this number (from 1), beginning of its hash, or concept; BadInput if none or many."""
    if wanted.isdecimal() and len(wanted) < SHORTEST_HASH:
        if not 1 <= int(wanted) <= len(edits):
            raise BadInput(
                f"There is no edit {wanted}: the ledger has 1 to {len(edits)}. `studio ledger RUN` lists them."
            )
        return int(wanted) - 1
    names = [[plain(concept["name"]) for concept in edit.about["concepts"]] for edit in edits]
    places = [
        number
        for number, edit in enumerate(edits)
        if plain(wanted) in names[number] or (len(wanted) >= SHORTEST_HASH and edit.hash.startswith(wanted.lower()))
    ]
    if not places:
        known = [concept["name"] for edit in edits for concept in edit.about["concepts"]]
        raise nearest(wanted, known, "erased concept, number or hash of this ledger")
    if len(places) > 1:
        numbers = " and ".join(str(place + 1) for place in places)
        raise BadInput(f"{wanted!r} is erased by edits {numbers}; give --without one of these numbers.")
    if len(names[places[0]]) > 1 and plain(wanted) in names[places[0]]:
        raise BadInput(
            f"{wanted!r} was erased together with others by one edit: {_names(edits[places[0]])}. "
            f"--without {places[0] + 1} takes all of them off."
        )
    return places[0]


def _joint(edits: Sequence[Edit]) -> bool:
    """Whether all edits are one closed form with equal knobs, so that any set of them has one solution."""
    first = edits[0].about
    alike = all(edit.about["method"] == first["method"] and edit.about["knobs"] == first["knobs"] for edit in edits)
    return alike and getattr(method(first["method"]), "joint", False)


def _solved_again(run: Run, left: Sequence[Edit], folder: Path, args: argparse.Namespace) -> Run:
    """A run of one job that erases what is left at once, from the base model."""
    from app.models import load
    from app.runs.erase import prepare
    from app.verbs.erase import as_begun, work_on
    from erase.concept import Concept

    erased = [Concept(**concept) for edit in left for concept in edit.about["concepts"]]
    spoken = {plain(words) for concept in erased for words in (concept.name, *concept.phrases)}
    kept = {plain(concept["name"]): Concept(**concept) for edit in left for concept in edit.about["keep"]}
    # What an earlier edit kept, a later one may have erased.
    keep = [concept for concept in kept.values() if spoken.isdisjoint(map(plain, (concept.name, *concept.phrases)))]
    job = _job(run, left[0]).model_copy(update={"concepts": tuple(erased), "keep": tuple(keep)})
    model = load(run.job.model, as_begun(run, args))
    made = prepare(folder, job, model, (), {"typed": args.typed, "from": str(run.folder)})
    work_on(made, model)
    return made


def _without_work(run: Run, left: Sequence[Edit], folder: Path, typed: str) -> Run:
    """A finished run of what is left, as if its newest edit had just been made on the others."""
    from app.runs.erase import stacked
    from app.runs.run import create

    require_space(folder, 2 * sum(edit.storage_bytes for edit in left), "the run without that edit")
    circumstances = {name: value for name, value in run.record.items() if name not in ("version", "hash", "job")}
    record = {**circumstances, "typed": typed, "from": str(run.folder)}
    return create(folder, _job(run, left[-1], left[:-1]), record, left, finished=stacked(left))


def _marked(edit: Edit, approximate: str) -> Edit:
    from erase.edit import Edit

    return Edit(edit.deltas, {**edit.about, "approximate": approximate})


def _job(run: Run, edit: Edit, parents: Sequence[Edit] = ()) -> Job:
    """The job that an edit is the result of."""
    from app.runs.job import Job
    from erase.concept import Concept

    about = edit.about
    return Job(
        model=run.job.model,
        dtype=run.job.dtype,
        config=run.job.config,
        parents=tuple(parent.hash for parent in parents),
        concepts=tuple(Concept(**concept) for concept in about["concepts"]),
        keep=tuple(Concept(**concept) for concept in about["keep"]),
        method=about["method"],
        knobs=about["knobs"],
        seed=about["seed"],
    )


def _entries(edits: Sequence[Edit | Stored]) -> list[dict[str, Any]]:
    return [_entry(place, edit) for place, edit in enumerate(edits)]


def _entry(place: int, edit: Edit | Stored) -> dict[str, Any]:
    names = [concept["name"] for concept in edit.about["concepts"]]
    entry = {"number": place + 1, "concepts": names, "method": edit.about["method"], "hash": edit.hash, "strength": 1.0}
    return entry | ({"approximate": edit.about["approximate"]} if "approximate" in edit.about else {})


def _listed(edits: Sequence[Edit | Stored]) -> str:
    rows = [
        (entry["number"], ", ".join(entry["concepts"]), entry["method"], entry["hash"][:12], f"{entry['strength']:g}")
        for entry in _entries(edits)
    ]
    notes = [
        f"{place}: {edit.about['approximate']}" for place, edit in enumerate(edits, 1) if "approximate" in edit.about
    ]
    return "\n".join([table(("number", "erased", "method", "hash", "strength"), rows), *notes])


def _names(edit: Edit) -> str:
    return ", ".join(concept["name"] for concept in edit.about["concepts"])
