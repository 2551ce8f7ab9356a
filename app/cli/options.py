"""The options of every verb. Nothing heavy is imported here, so that --help answers at once."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from erase.errors import BadInput, match, nearest

KINDS = ("style", "object", "nudity", "identity", "attribute")
DTYPES = ("fp32", "fp16", "bf16")
PROBES = (
    "who reads the pictures: a probe, clip:NAME|DIR, or UnlearnCanvas' folder of classifiers (default: the suite's)"
)
SOURCE = "a bundled model, a local pipeline folder or .safetensors file, a hub id, or a RUN folder"


class Parser(argparse.ArgumentParser):
    """Answers mistakes with BadInput, so that they end like every other mistake: one sentence and exit 2."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message[0].upper()}{message[1:]}. `{self.prog} --help` lists what is possible.")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace; `run` names the verb's function. BadInput names the nearest option or verb."""
    argv = [_dashed(word) for word in argv]
    parser, verbs = _parsers(argv)
    if argv and not argv[0].startswith("-") and argv[0] not in verbs:
        raise nearest(argv[0], verbs, "command")
    args, rest = parser.parse_known_args(argv)
    args.typed = shlex.join(["studio", *argv])
    if rest:
        verb = verbs[args.verb]
        if not rest[0].startswith("--"):
            raise BadInput(f"{rest[0]!r} is one argument too many for `studio {args.verb}`.")
        method = getattr(args, "method", None)
        what = f"option of `studio {args.verb}`" + (f" or knob of {method}" if method else "")
        options = [name.removeprefix("--") for action in verb._actions for name in action.option_strings]
        raise nearest(rest[0].removeprefix("--").split("=")[0], [name for name in options if len(name) > 2], what)
    return args


def _parsers(argv: Sequence[str]) -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="studio",
        allow_abbrev=False,
        description="Erase a concept from an image generator, judge what was lost, carry the result away.",
        epilog="Start with `studio demo`. `studio COMMAND --help` explains each command; "
        "`studio methods NAME` explains a method's knobs.",
    )
    parser.add_argument("--version", action="version", version=_version())
    group = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, parser_class=Parser)
    verbs: dict[str, Parser] = {}

    def verb(name: str, run: str, about: str, *, loads: bool = False) -> Parser:
        made = group.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="print exactly one JSON document on stdout")
        made.set_defaults(run=f"app.verbs.{run}", online=False)
        if loads:
            _loading(made)
        verbs[name] = made
        return made

    demo = verb("demo", "demo:demo", "erase a style from the bundled model, judge, draw and export it", loads=True)
    demo.add_argument("--out", default="demo", metavar="DIR", help="where everything goes (default: %(default)s)")

    verb("models", "listings:models", "list the models that come with the studio")
    methods = verb("methods", "listings:methods", "list the ways to erase, or explain one with its knobs")
    methods.add_argument("name", nargs="?", metavar="METHOD", help="explain this one")
    verb("metrics", "listings:metrics", "list what `studio judge` measures")
    verb("suites", "listings:suites", "list the sets of prompts that models are judged on")

    sample = verb("sample", "sample:sample", "draw a contact sheet: a row per prompt, a column per seed", loads=True)
    sample.add_argument("source", metavar="MODEL|RUN", help=SOURCE)
    sample.add_argument("--prompt", action="append", metavar="TEXT", help="what to draw; repeat it for more rows")
    sample.add_argument(
        "--seeds", metavar="A:B", help="A, A+1 … B-1, or a list A,B,C (default: 0:4); alone, of the empty prompt"
    )
    sample.add_argument(
        "--strength", type=float, default=None, metavar="S", help="of a RUN's edit: 0 the base model, 1 as made"
    )
    sample.add_argument("--steps", type=int, metavar="N", help="denoising steps (default: the model's own)")
    sample.add_argument("--guidance", type=float, metavar="G", help="guidance scale (default: the model's own)")
    sample.add_argument("--out", required=True, metavar="PNG", help="the picture to write")

    look = verb("look", "look:look", "draw a RUN's rows at many strengths, with verdicts", loads=True)
    look.add_argument("source", metavar="RUN", help="the folder of a finished run")
    look.add_argument("--prompt", action="append", metavar="TEXT", help="draw this instead of the four rows")
    look.add_argument("--seeds", metavar="A:B", help="of your prompts (default: 0:2), or of a GAN instead of two rows")
    look.add_argument("--strengths", metavar="S,S,…", help="of the edit (default: 0 to 1.5 in quarters)")
    look.add_argument("--suite", default="pocket-canvas-small", metavar="NAME|FILE", help="whose rows and whose probe")

    latents = verb("latents", "latents:latents", "draw a GAN's pictures of seeds, one file each", loads=True)
    latents.add_argument("source", metavar="GAN|RUN", help="a bundled GAN, its folder or file, or a RUN of one")
    latents.add_argument("--seeds", default="0:48", metavar="A:B", help="which (default: %(default)s)")
    latents.add_argument("--out", required=True, metavar="DIR", help="where they go")

    _erase(verb("erase", "erase:erase", "erase concepts from a model into a RUN folder", loads=True), argv)
    resume = verb("resume", "erase:resume", "go on with an unfinished RUN, to the same bits", loads=True)
    resume.add_argument("source", metavar="RUN", help="the folder of the run")
    resume.add_argument("--save-every", type=float, metavar="SECONDS", help="time between snapshots (default: 30)")
    again = verb(
        "reproduce", "erase:reproduce", "run a RUN's job once more and compare the edits bit by bit", loads=True
    )
    again.add_argument("source", metavar="RUN", help="the run to repeat")
    again.add_argument("--out", required=True, metavar="RUN", help="the folder of the new run")
    runs = verb("runs", "listings:runs", "list the runs below a folder")
    runs.add_argument("folder", nargs="?", metavar="DIR", help="where to look (default: here, and the studio's home)")
    cancel = verb("cancel", "tasks:cancel", "stop what the studio is doing to a RUN")
    cancel.add_argument("source", metavar="RUN", help="the folder of the run, or a task's id from `studio runs --json`")
    cancel.add_argument("--discard", action="store_true", help="remove an unfinished run instead of keeping its state")
    cancel.add_argument("--force", action="store_true", help="end the process if it does not stop within two seconds")

    ledger = verb("ledger", "ledger:ledger", "list the edits a RUN wears, or take one of them off again", loads=True)
    ledger.add_argument("source", metavar="RUN", help="the folder of a finished run")
    ledger.add_argument("--without", metavar="NAME|HASH|NUMBER", help="the edit to take off")
    ledger.add_argument("--out", metavar="RUN", help="the folder of the new run that does without it")

    near = verb("neighbours", "neighbours:neighbours", "list the concepts nearest in meaning to one", loads=True)
    near.add_argument("source", metavar="MODEL|RUN", help=SOURCE)
    near.add_argument("--concept", required=True, metavar="NAME", help="whose neighbours")
    near.add_argument("--suite", default="pocket-canvas", metavar="NAME|FILE", help="whose concepts are compared")
    near.add_argument("--count", type=int, default=8, metavar="N", help="how many (default: %(default)s)")

    judge = verb("judge", "judge:judge", "measure a model, or what a RUN's edit did to it", loads=True)
    judge.add_argument("source", metavar="MODEL|RUN", help=SOURCE)
    suites = "what to draw and score (default: pocket-canvas for a MODEL, pocket-canvas-small for a RUN)"
    judge.add_argument("--suite", metavar="NAME|FILE", help=suites)
    judge.add_argument("--probe", metavar="NAME|DIR", help=PROBES)
    data = "measure FID against this data set, laid out as THEME/OBJECT/1.jpg (default: the unedited model's pictures)"
    judge.add_argument("--data", metavar="DIR", help=data)
    until = "of a RUN: draw seed by seed, until UA, IRA and CRA are each known to ± this share (such as 0.02)"
    judge.add_argument("--until", type=float, metavar="SHARE", help=until)

    serve = verb("serve", "serve:serve", "open the studio as a page in the browser")
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="who may come (default: %(default)s)")
    serve.add_argument("--port", type=int, default=7860, metavar="N", help="(default: %(default)s)")
    serve.add_argument("--auth", metavar="USER:PASSWORD", help="ask for a login; STUDIO_AUTH says the same unseen")
    serve.add_argument("--show", metavar="RUN", help="put a copy of this run among those of the page")

    strength = verb(
        "strength",
        "strength:strength",
        "find the strength at which a RUN's edit erases, and spares the rest",
        loads=True,
    )
    strength.add_argument("source", metavar="RUN", help="the folder of a finished run")
    strength.add_argument("--suite", metavar="NAME|FILE", default="pocket-canvas", help="what to draw")
    strength.add_argument("--shots", type=int, default=40, metavar="N", help="of the concept (default: 40)")

    _attack(
        verb("attack", "attack:attack", "try to bring an erased concept back, and count how often", loads=True), argv
    )
    verb("attacks", "listings:attacks", "list the attacks, or explain one with its knobs").add_argument(
        "name", nargs="?", metavar="ATTACK", help="explain this one"
    )

    sweep = verb("sweep", "sweep:sweep", "run every method of a TOML file on every concept, and rank them")
    sweep.add_argument("file", metavar="FILE.toml", help="what to sweep over")
    sweep.add_argument("--out", required=True, metavar="DIR", help="one RUN folder per cell, and leaderboard.json")
    workers = "processes (default: one per GPU, else as many as the processors hold); the table does not depend on it"
    sweep.add_argument("--workers", type=int, metavar="N", help=workers)
    sweep.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster that sees --out; `local` starts one here")

    report = verb("report", "report:report", "write a run, a sweep, or a folder of runs as one HTML file")
    report.add_argument("source", metavar="RUN|DIR", help="a judged run, the folder of a sweep, or one with runs below")
    report.add_argument("--out", required=True, metavar="HTML", help="the file to write")

    export = verb("export", "export:export", "write a RUN's edited model in a format other programs open")
    _loading(export, dtype=False)
    export.add_argument("source", metavar="RUN", help="the folder of a finished run, or an edit file")
    export.add_argument("--as", dest="form", required=True, metavar="FORMAT", help="the format, or `list` to see them")
    export.add_argument("--out", metavar="PATH", help="where to write")
    export.add_argument(
        "--dtype", dest="save_dtype", choices=DTYPES, help="of the written weights (default: as the model's)"
    )
    export.add_argument("--strength", type=float, default=1.0, metavar="S", help="how much of the edit (default: 1)")
    export.add_argument("--variant", metavar="NAME", help="goes into a pipeline's file names, for example fp16")
    export.add_argument(
        "--error", type=float, metavar="E", help="share of the edit a low-rank format may miss (LoRA: 0.01)"
    )
    export.add_argument("--rank", type=int, metavar="R", help="of a low-rank format, instead of --error")
    export.add_argument("--size", type=float, metavar="MB", help="the megabytes a low-rank format may take, instead")
    export.add_argument("--force", action="store_true", help="replace what is already at --out")
    return parser, verbs


def _erase(parser: Parser, argv: Sequence[str]) -> None:
    parser.add_argument("source", metavar="MODEL|RUN", help=SOURCE + " (erasing from a RUN stacks on its edit)")
    parser.add_argument(
        "--concept", action="append", required=True, metavar="NAME", help="what to erase; may be repeated"
    )
    kinds = "what the concepts are (default: what the name is in the bundled vocabulary, else object)"
    parser.add_argument("--kind", metavar="|".join(KINDS), help=kinds)
    parser.add_argument("--anchor", metavar="TEXT", help="what to draw instead (default: by kind)")
    parser.add_argument("--keep", action="extend", nargs="+", default=[], metavar="NAME", help="concepts to protect")
    parser.add_argument("--method", required=True, metavar="METHOD", help=f"one of: {', '.join(_method_names())}")
    parser.add_argument("--preset", metavar="NAME", help="named settings of the method")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides every random draw (default: 0)")
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to make")
    parser.add_argument("--resume", action="store_true", help="go on when --out holds this job unfinished")
    parser.add_argument("--save-every", type=float, metavar="SECONDS", help="time between snapshots (default: 30)")
    parser.add_argument("--previews", type=float, metavar="SECONDS", help="time between pictures of the work (off)")
    method = _value(argv, "--method")
    if argv[:1] == ["erase"] and method:
        from app.knobs import add_knobs

        add_knobs(parser, match(method, _method_names(), "method"))
    else:
        parser.epilog = "Every method has knobs of its own: `studio erase --method esd --help` adds them to this list."


def _attack(parser: Parser, argv: Sequence[str]) -> None:
    parser.add_argument("source", metavar="MODEL|RUN", help=SOURCE)
    parser.add_argument("--concept", required=True, metavar="NAME", help="what should come back")
    parser.add_argument("--attack", required=True, metavar="ATTACK", help=f"one of: {', '.join(_attack_names())}")
    files = (
        "prompts to attack: CSV (case_number, prompt, evaluation_seed, evaluation_guidance), text with a prompt a "
        "line, or the attack.jsonl of another attack (default: sentences of the suite)"
    )
    parser.add_argument("--prompts", metavar="FILE", help=files)
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="sentences of the suite (default: 20)")
    suites = "whose sentences, and whose judge (default: %(default)s)"
    parser.add_argument("--suite", default="pocket-canvas-small", metavar="NAME|FILE", help=suites)
    parser.add_argument("--probe", metavar="NAME|DIR", help=PROBES)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides every random draw (default: 0)")
    parser.add_argument("--batch", type=int, default=20, metavar="N", help="rows side by side (default: %(default)s)")
    unscored = "leave FID, CLIP, IRA and CRA of a RUN unscored that `studio judge` has not measured"
    parser.add_argument("--no-utility", action="store_true", help=unscored)
    kept = "where pictures and prompts are kept (default: RUN/attacks/…; nowhere for a MODEL)"
    parser.add_argument("--out", metavar="DIR", help=kept)
    attack = _value(argv, "--attack")
    if argv[:1] == ["attack"] and attack:
        from app.knobs import add_knobs
        from benchmarks.attacks.registry import attack_kind

        name = match(attack, _attack_names(), "attack")
        add_knobs(parser, name, attack_kind(name))
    else:
        parser.epilog = "--budget N and further knobs belong to each attack: `studio attacks NAME` explains them."


def _loading(parser: Parser, *, dtype: bool = True) -> None:
    group = parser.add_argument_group("loading")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: the GPU if there is one)")
    if not dtype:
        parser.set_defaults(dtype="auto")
    else:
        group.add_argument("--dtype", default="auto", choices=("auto", *DTYPES), help="of the weights in memory")
    group.add_argument("--attention-slicing", action="store_true", help="less memory, slower")
    group.add_argument("--offload", action="store_true", help="keep idle parts in main memory (GPU only)")
    group.add_argument("--config", metavar="DIR", help="pipeline folder whose shape a single-file checkpoint has")
    group.add_argument("--online", action="store_true", help="allow a hub id to be fetched")


def _method_names() -> list[str]:
    from erase.methods.registry import method_names

    return list(method_names())


def _attack_names() -> list[str]:
    from benchmarks.attacks.registry import every_attack

    return every_attack()


def _dashed(word: str) -> str:
    """--kept_rows is --kept-rows: underscores and dashes are alike in names, and left alone in values."""
    name, equals, value = word.partition("=")
    return (name.replace("_", "-") + equals + value) if word.startswith("--") else word


def _value(argv: Sequence[str], option: str) -> str | None:
    """The value an option will have, read before the parser for it can be built."""
    for at, word in enumerate(argv):
        if word == option and at + 1 < len(argv):
            return argv[at + 1]
        if word.startswith(option + "="):
            return word.split("=", 1)[1]
    return None


def _version() -> str:
    try:
        return f"studio {metadata.version('concept-erasure-studio')}"
    except metadata.PackageNotFoundError:
        return "studio, run from a checkout that is not installed"
