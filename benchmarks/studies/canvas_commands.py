"""The commands of `python -m benchmarks` on a canvas of styles and objects: targets, sequences, pairs, insides."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from erase.errors import BadInput
from erase.work import Work

Watch = Callable[[Work[Any]], Any]
# Each taught on short phrases and not on sentences like those that are read, as pocket-style and pocket-object are.
EQUAL = "doco:pocket+templates=true,doco:pocket+templates=true+surgery=off,ablate:pocket+templates=true+lr=2e-3"


def add(commands: Any) -> None:
    """Their options."""
    pocket = commands.add_parser("pocket", help="erase and judge every target of Pocket Canvas")
    pocket.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="a knob; may be repeated")
    pocket.add_argument("--keep-others", action="store_true", help="keep every other label of the suite")
    grand = commands.add_parser("grand", help="every method of the grand table on its targets; writes table and docs")
    grand.add_argument("--render", action="store_true", help="run nothing: write the table of what is there")
    grand.add_argument("--only", metavar="LABEL,...", help="of its lines, these (default: all)")
    for command in (pocket, grand):
        command.add_argument("--out", required=True, type=Path, help="one report per target; finished ones stay")
    sequence = commands.add_parser("sequence", help="erase concepts one after another: does forgotten stay forgotten?")
    sequence.add_argument("--targets", default="Van_Gogh,Cats,Neon_Lines,Towers", help="with commas, in this order")
    pairs = commands.add_parser("pairs", help="erase one object in one style, and nothing else of either")
    pairs.add_argument("--count", type=int, default=10, help="how many pairs, of ten (default: %(default)s)")
    inside = commands.add_parser("inside", help="does a linear probe on the U-Net's features still find the concept?")
    inside.add_argument("--targets", default="Van_Gogh,Cats", help="with commas")
    equal = commands.add_parser("equal", help="what is erased at equal retention, what is kept at equal erasure")
    equal.add_argument(
        "--methods", default=EQUAL, metavar="NAME:PRESET+KNOB=VALUE,...",
        help="with commas; the others are held against the first (default: DoCo, the same without surgery, and CA)",
    )  # fmt: skip
    equal.add_argument("--targets", default="Van_Gogh,Cats", help="with commas (default: %(default)s)")
    equal.add_argument("--seeds", default="0,1,2", help="of the erasures, with commas (default: %(default)s)")
    equal.add_argument("--out", required=True, type=Path, help="one file per edit; finished ones stay")
    for command in (pocket, inside, sequence, pairs):
        command.add_argument(
            "--methods", default="uce,esd:pocket" if command is inside else "uce",
            metavar="NAME[:PRESET][+KNOB=VALUE],...",
            help="with commas; without a preset the one named like the target's kind holds (default: %(default)s)",
        )  # fmt: skip
    pocket.add_argument("--targets", default="all", help="all, styles, objects, or names with commas")
    pocket.add_argument("--suite", default="pocket-canvas", help="a suite or a TOML file (default: %(default)s)")
    for command in (sequence, pairs, inside, equal):
        command.add_argument("--suite", default="pocket-canvas-quick", help="a suite or file (default: %(default)s)")
    for command in (pocket, grand, sequence, pairs, inside, equal):
        command.add_argument("--model", default="pocket-sd", help="what `studio erase` takes (default: %(default)s)")
        command.add_argument("--device", default="auto")
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--json", action="store_true", help="one JSON document on stdout")


def numbers(option: str, text: str) -> list[int]:
    """The whole numbers with commas that an option was given; BadInput names what is none."""
    for part in text.split(","):
        if not part.strip().isdecimal():
            raise BadInput(f"--{option} {text}: {part!r} is not a whole number; give some with commas, such as 1,2,3.")
    return [int(part) for part in text.split(",")]


def pocket(given: argparse.Namespace, model: Any, watch: Watch) -> str:
    """Every target, judged."""
    from benchmarks.studies.common import board, erase_and_judge
    from benchmarks.studies.retrained import round_of
    from benchmarks.suites.suite import chosen, load_suite

    suite = load_suite(given.suite)
    options = {"keep_others": given.keep_others, "seed": given.seed}
    rounds = [round_of(name, given.set, **options) for name in given.methods.split(",")]
    found = board(watch(erase_and_judge(model(), suite, rounds, chosen(suite, given.targets), given.out)))
    return found.model_dump_json() if given.json else found.table()


def grand(given: argparse.Namespace, model: Any, watch: Watch) -> str:
    """The grand table; what is there is never made again."""
    from benchmarks.studies.grand_table import finished, run, written

    if not given.render:
        watch(run(model(), given.out, given.only))
    return written(finished(given.out))


def sequence(given: argparse.Namespace, model: Any, watch: Watch) -> str:
    """One after another, backwards, and all at once."""
    from benchmarks.studies.common import Round, as_json
    from benchmarks.studies.sequences import sequences, sequences_table
    from benchmarks.suites.suite import load_suite

    suite = load_suite(given.suite)
    rounds = [Round.read(name, keep_others=True, seed=given.seed) for name in given.methods.split(",")]
    lines = watch(sequences(model(), suite, rounds, suite.targets(given.targets.split(","))))
    return as_json({"lines": [vars(line) for line in lines]}) if given.json else sequences_table(lines)


def pairs(given: argparse.Namespace, model: Any, watch: Watch) -> str:
    """The finer scale."""
    from benchmarks.studies.common import Round, as_json
    from benchmarks.studies.sequences import PAIRS, erase_pairs, pairs_table
    from benchmarks.suites.suite import load_suite

    if not 1 <= given.count <= len(PAIRS):
        raise BadInput(f"--count {given.count}: there are {len(PAIRS)} pairs; give 1 to {len(PAIRS)}.")
    rounds = [Round.read(name, seed=given.seed) for name in given.methods.split(",")]
    lines = watch(erase_pairs(model(), load_suite(given.suite), rounds, PAIRS[: given.count]))
    return as_json({"lines": [vars(line) for line in lines]}) if given.json else pairs_table(lines)


def inside(given: argparse.Namespace, model: Any, watch: Watch) -> str:
    """Linear probes on the U-Net."""
    from benchmarks.studies.common import as_json
    from benchmarks.studies.linear_probe import find_inside, inside_table
    from benchmarks.studies.retrained import round_of
    from benchmarks.suites.suite import load_suite

    suite = load_suite(given.suite)
    rounds = [round_of(name, keep_others=True, seed=given.seed) for name in given.methods.split(",")]
    lines = watch(find_inside(model(), suite, rounds, suite.targets(given.targets.split(","))))
    return as_json({"lines": [vars(line) for line in lines]}) if given.json else inside_table(lines)


def equal(given: argparse.Namespace, model: Any, watch: Watch) -> str:
    """Lines of strengths, compared."""
    from benchmarks.studies.common import Round, as_json
    from benchmarks.studies.equal_budget import compared, measure, table
    from benchmarks.suites.suite import load_suite

    suite = load_suite(given.suite)
    rounds = [Round.read(name) for name in given.methods.split(",")]
    seeds = numbers("seeds", given.seeds)
    lines = watch(measure(model(), suite, rounds, suite.targets(given.targets.split(",")), seeds, given.out))
    found = {"compared": compared(lines), "lines": [line.model_dump(mode="json") for line in lines]}
    return as_json(found) if given.json else table(lines)


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Any, Watch], str]] = {
    "pocket": pocket, "grand": grand, "sequence": sequence, "pairs": pairs, "inside": inside,
    "equal": equal,
}  # fmt: skip
