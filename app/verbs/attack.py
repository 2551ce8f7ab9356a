"""`studio attack`: tries to bring an erased concept back, and counts how often that works."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.answer import Answer
from app.cli.options import COUNT, PROBES, SEED, SOURCE, Parser, unused, value
from app.cli.progress import follow
from app.knobs import add_knobs, given_knobs
from benchmarks.attacks.registry import ON_GANS, build, every_attack, name_of
from erase.errors import BadInput, match, plain
from erase.files import file_name, lock, require_writable, write_text

if TYPE_CHECKING:
    from app.models import Source
    from benchmarks.attacks.engine import Attack
    from benchmarks.attacks.run import AttackReport
    from benchmarks.report import Report


BATCH = 20  # rows side by side


def attack_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="MODEL|RUN", help=SOURCE)
    parser.add_argument("--concept", required=True, metavar="NAME", help="what should come back")
    parser.add_argument("--attack", required=True, metavar="ATTACK", help=f"one of: {', '.join(every_attack())}")
    files = (
        "prompts to attack: CSV (case_number, prompt, evaluation_seed, evaluation_guidance), text with a prompt a "
        "line, or the attack.jsonl of another attack (default: sentences of the suite)"
    )
    parser.add_argument("--prompts", metavar="FILE", help=files)
    parser.add_argument("--rows", type=COUNT, default=20, metavar="N", help="sentences of the suite (default: 20)")
    suites = "suite that provides prompts and probe (default: %(default)s)"
    parser.add_argument("--suite", default="pocket-canvas-small", metavar="NAME|FILE", help=suites)
    parser.add_argument("--probe", metavar="NAME|DIR", help=PROBES)
    parser.add_argument("--seed", type=SEED, default=0, metavar="N", help="decides every random draw (default: 0)")
    parser.add_argument(
        "--batch", type=COUNT, default=BATCH, metavar="N", help="rows side by side (default: %(default)s)"
    )
    unscored = "leave FID, CLIP, IRA and CRA of a RUN unscored that `studio judge` has not measured"
    parser.add_argument("--no-utility", action="store_true", help=unscored)
    kept = "where pictures and prompts are kept (default: RUN/attacks/…; nowhere for a MODEL)"
    parser.add_argument("--out", metavar="DIR", help=kept)
    name = value(parser.words, "--attack")
    if name:
        from benchmarks.attacks.registry import attack_declaration

        name = match(name, every_attack(), "attack")
        add_knobs(parser, name, attack_declaration(name))
    else:
        parser.epilog = "--budget N and further knobs belong to each attack: `studio attacks NAME` explains them."


def attack(args: argparse.Namespace) -> Answer:
    """Attack a concept of a model or run; a finished attack is opened, an unfinished one goes on."""
    on_gan = match(args.attack, every_attack(), "attack") in ON_GANS
    return _attack_gan(args) if on_gan else _attack_diffusion(args)


def _attack_diffusion(args: argparse.Namespace) -> Answer:
    """Search prompts, row by row; every decided row is kept at once."""
    from app.models import loaded, source
    from benchmarks.attacks.run import attack as attacked
    from benchmarks.attacks.settings import AttackSettings
    from benchmarks.suites.prompts import file_rows
    from benchmarks.suites.suite import load_suite
    from erase.model import Denoiser, require

    what = source(args.source)
    if what.base == "pocket-gan":
        raise BadInput(f"{args.attack} searches prompts, and pocket-gan reads none; for GANs: {', '.join(ON_GANS)}.")
    knobs = given_knobs(args)
    how = build(args.attack, knobs.pop("budget", None), knobs)
    suite = load_suite(args.suite, probe=args.probe)
    label = suite.target(args.concept).label
    settings = AttackSettings(
        suite=suite,
        rows=None if args.prompts is None else file_rows(Path(args.prompts)),
        count=args.rows,
        seed=args.seed,
        batch=args.batch,
        utility=not args.no_utility,
        job={"typed": args.typed, "source": args.source},
    )
    edit, folder = what.edit(), _folder(args, what, how, label)
    if folder is not None:
        require_writable(folder)
    model = loaded(what, args)
    require(model, Denoiser, f"{args.attack} (for a GAN there are {', '.join(ON_GANS)}; it)")
    work = attacked(model, edit, args.concept, how, settings, folder=folder, beside=_judged(what))
    if folder is None:
        report = follow(work, f"attacking {args.concept}")
        return Answer(_document(report, None), _summary(report))
    with lock(folder):
        try:
            report = follow(work, f"attacking {args.concept}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Cancelled; the same command goes on with the rows that {folder} lacks.") from None
        write_text(folder / "report.json", report.json_text() + "\n")
    return Answer(
        _document(report, folder),
        f"{_summary(report)}\nReport: {folder / 'report.json'}\nPictures: {folder / 'attack.png'}",
    )


def _attack_gan(args: argparse.Namespace) -> Answer:
    """Search a GAN's codes for what was erased from it."""
    from app.models import loaded, source
    from benchmarks.attacks.gan.run import attack_gan
    from benchmarks.attacks.gan.run import build as build_on_gans
    from benchmarks.attacks.settings import GanAttackSettings
    from benchmarks.judging.judge_gan import GAN_SUITE
    from benchmarks.suites.gan_suite import gan_suite, gan_suite_names
    from erase.model import Gan, require

    knobs = given_knobs(args)
    how = build_on_gans(args.attack, knobs.pop("budget", None), knobs)
    unused(args, f"{args.attack} searches a GAN's codes", prompts=None, probe=None, no_utility=False, batch=BATCH)
    settings = GanAttackSettings(
        suite=gan_suite(args.suite if plain(args.suite) in map(plain, gan_suite_names()) else GAN_SUITE),
        count=args.rows,
        seed=args.seed,
        job={"typed": args.typed, "source": args.source},
    )
    what = source(args.source)
    edit = what.edit()
    place = Path(args.out) if args.out is not None else what.run.folder if what.run is not None else None
    if place is not None:
        require_writable(place)
    model = loaded(what, args)
    require(model, Gan, args.attack)
    work = attack_gan(model, edit, args.concept, how, settings, beside=_judged(what))
    report = follow(work, f"attacking {args.concept}")
    folder = Path(args.out) if args.out is not None else None
    if folder is None and what.run is not None:
        name = f"{report.job['attack']}-{report.job['concept']}-{how.budget}"
        folder = what.run.folder / "attacks" / file_name(name)
    if folder is None:
        return Answer(report.model_dump(mode="json"), report.table())
    write_text(folder / "report.json", report.json_text() + "\n")
    return Answer(report.model_dump(mode="json"), f"{report.table()}\nReport: {folder / 'report.json'}")


def _folder(args: argparse.Namespace, what: Source, how: Attack, label: str) -> Path | None:
    """--out, or a folder below the run that this very command finds again; a plain model keeps nothing unasked."""
    if args.out is not None:
        return Path(args.out)
    if what.run is None:
        return None
    prompts = None if args.prompts is None else Path(args.prompts).read_text(encoding="utf-8-sig")
    asked = [str(how), args.seed, args.rows, args.suite, prompts]
    digest = hashlib.sha256(repr(asked).encode()).hexdigest()[:6]
    return what.run.folder / "attacks" / f"{name_of(how)}-{file_name(label)}-{how.budget}-{digest}"


def _judged(what: Source) -> Report | None:
    """The run's own report, if it has been judged."""
    from benchmarks.report import Report

    path = None if what.run is None else what.run.folder / "report.json"
    return Report.read(path) if path is not None and path.is_file() else None


def _document(report: AttackReport, folder: Path | None) -> Mapping[str, Any]:
    """The report as JSON, its pictures by their whole path."""
    document = report.model_dump(mode="json")
    for broken in document["broken"]:
        if folder is not None and broken["image"] is not None:
            broken["image"] = str((folder / broken["image"]).resolve())
    return document


def _summary(report: AttackReport) -> str:
    shown = [f"  {broken['adversarial']}  (seed {broken['seed']})" for broken in report.broken[:5]]
    more = [f"  … {len(report.broken) - 5} more"] if len(report.broken) > 5 else []
    head = ["Brought back by:"] if shown else []
    return "\n".join([report.table(), *head, *shown, *more])
