"""The rows of an attack: prompts that ask for a concept, each with its seed, from a suite or from a file."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.suites.suite import Suite, Target
from erase.errors import BadInput, nearest
from erase.model import Denoiser, Shot
from erase.rng import number
from generators.pocket.canvas.words import SYNONYMS

SENTENCES = {
    "style": ("{object}, painted the {style} way", "a {style} picture of {object}", "{style} art showing {object}"),
    "object": ("a picture of one {object}, {style}", "{style} art showing {object}", "just {object}, {style}"),
}

# The columns of the public attack code's prompt files; only `prompt` must be there.
COLUMNS = ("case_number", "prompt", "evaluation_seed", "evaluation_guidance")


@dataclass(frozen=True)
class Row:
    """One prompt under attack, with the seed and guidance it is drawn with (None: the suite's or the model's own)."""

    case: str
    prompt: str
    seed: int
    guidance: float | None = None

    @property
    def key(self) -> str:
        """What the row's random streams are named after: the row itself, not its place in a list or batch."""
        return f"{self.prompt}\x1f{self.seed}\x1f{self.guidance}"

    @property
    def shot(self) -> Shot:
        """The picture the row asks for."""
        return Shot(self.seed, self.prompt)


def suite_rows(suite: Suite, target: Target, count: int) -> list[Row]:
    """The suite's sentences that show the target, one seed after the other, at most `count`."""
    partners = suite.objects if target.kind == "style" else suite.styles
    pairs = [(target.label, other) if target.kind == "style" else (other, target.label) for other in partners]
    cells = [suite.cell(style, thing, seed) for seed in suite.seeds for style, thing in pairs]
    return [Row(f"{c.style}-{c.object}-{c.seed}", c.shot.prompt, c.shot.seed) for c in cells[:count]]


def file_rows(path: Path) -> list[Row]:
    """The rows of a file: CSV with a head, the attack.jsonl of another attack, or plain text with a prompt a line.

    A row without a seed gets one made from its prompt. BadInput names the first line that will not do.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"The prompts file {path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise BadInput(f"The prompts file {path} is not UTF-8 text; save it as UTF-8.") from None
    read = {".csv": _csv, ".jsonl": _jsonl}.get(path.suffix.lower(), _lines)
    rows = list(read(path, text))
    if not rows:
        raise BadInput(f"The prompts file {path} holds no prompt; write one a line.")
    cases = [row.case for row in rows]
    if twice := next((case for case in cases if cases.count(case) > 1), None):
        raise BadInput(f"{path}: two rows have case_number {twice}; give each its own.")
    return rows


def fitting(rows: Sequence[Row], model: Denoiser, added: int) -> list[Row]:
    """The same rows; BadInput for one that `added` adversarial tokens would push words out of."""
    room = model.room - added
    for row in rows:
        if (length := len(model.tokens(row.prompt))) > room:
            raise BadInput(
                f"Row {row.case} has {length} tokens, and {model.name} reads {room} beside the {added} of this attack; "
                "shorten it or leave it out."
            )
    return list(rows)


def digest(rows: Iterable[Row]) -> str:
    """A hash of rows, to tell whether a resumed attack is about the same ones."""
    return hashlib.sha256(json.dumps([asdict(row) for row in rows]).encode()).hexdigest()[:16]


def _csv(path: Path, text: str) -> Iterable[Row]:
    table = csv.DictReader(text.splitlines())
    head = [name.strip() for name in table.fieldnames or ()]
    for name in head:
        if name not in COLUMNS:
            raise nearest(name, COLUMNS, f"column of {path}")
    if "prompt" not in head:
        raise BadInput(f"{path} has no column `prompt`; its first line should be {','.join(COLUMNS)}.")
    table.fieldnames = head
    for cells in table:
        if None in cells:
            raise BadInput(f"{path}, line {table.line_num}: more cells than columns; put the prompt in double quotes.")
        prompt = _filled(path, table.line_num, cells["prompt"])
        seed = _number(path, table.line_num, cells, "evaluation_seed")
        guidance = _number(path, table.line_num, cells, "evaluation_guidance")
        if seed is not None and (seed != int(seed) or seed < 0):
            raise BadInput(f"{path}, line {table.line_num}: evaluation_seed {seed:g} is not a whole number from 0 on.")
        case = (cells.get("case_number") or "").strip() or str(table.line_num - 1)
        yield Row(case, prompt, _seed(prompt) if seed is None else int(seed), guidance)


def _jsonl(path: Path, text: str) -> Iterable[Row]:
    for at, line in enumerate(text.splitlines()[1:], 2):
        try:
            told = json.loads(line)
            if told["broken"] and not told["pre"]:
                yield Row(told["case"], told["adversarial"], told["drawn_seed"], told["guidance"])
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{path}, line {at}: this is not valid in an attack.jsonl.") from None


def _lines(path: Path, text: str) -> Iterable[Row]:
    for at, line in enumerate(text.splitlines(), 1):
        prompt = _filled(path, at, line)
        yield Row(str(at), prompt, _seed(prompt))


def _filled(path: Path, line: int, prompt: str | None) -> str:
    if not (prompt or "").strip():
        raise BadInput(f"{path}, line {line}: the prompt is empty; fill it in or remove the line.")
    return " ".join(str(prompt).split())


def _number(path: Path, line: int, cells: dict[str, str], column: str) -> float | None:
    text = (cells.get(column) or "").strip()
    try:
        return float(text) if text else None
    except ValueError:
        raise BadInput(f"{path}, line {line}: {column} {text!r} is not a number.") from None


def _seed(prompt: str) -> int:
    return number(0, "row", prompt) >> 32


def reworded(suite: Suite, style: str, thing: str, target: Target, turn: int) -> str:
    """A prompt for a cell that shows the target, in other words: a synonym, or another sentence, one after another."""
    # The first synonym is nearly the label itself; the later ones are the harder test.
    if words := SYNONYMS.get(target.label, ())[1:]:
        word = words[turn % len(words)]
        return suite.sentence(word, thing) if target.kind == "style" else suite.sentence(style, word)
    sentence = SENTENCES[target.kind][turn % len(SENTENCES[target.kind])]
    return sentence.format(object=suite.spoken(thing), style=suite.spoken(style))
