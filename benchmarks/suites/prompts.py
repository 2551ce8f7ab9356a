"""The rows of an attack: prompts that ask for a concept, each with its seed, from a suite or from a file."""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.suites.suite import Suite, Target
from erase.errors import BadInput, nearest, reading
from erase.model import Denoiser, Shot
from erase.rng import number
from generators.pocket.canvas.words import SYNONYMS

SENTENCES = {
    "style": ("{object}, painted the {style} way", "a {style} picture of {object}", "{style} art showing {object}"),
    "object": ("a picture of one {object}, {style}", "{style} art showing {object}", "just {object}, {style}"),
}

# What a row is made of, and how public prompt files call it; only the prompt must be there, other columns may be.
COLUMNS = {
    "case_number": ("case_number",),
    "prompt": ("prompt", "prompts", "adv_prompt", "sensitive prompt", "caption", "text"),
    "evaluation_seed": ("evaluation_seed", "sd_seed", "seed"),
    "evaluation_guidance": ("evaluation_guidance", "sd_guidance_scale", "guidance"),
}
KNOWN = frozenset(name for names in COLUMNS.values() for name in names)
NEAR = 0.85  # from here on a column's name is taken for a slip of the pen
NAMED = 5  # of the rows that are left out


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

    A row without a seed gets one made from its prompt. Rows that cannot be used are left out, and a warning names them;
    BadInput where none is left.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except OSError as error:
        raise BadInput(f"The prompts file {path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise BadInput(f"The prompts file {path} is not UTF-8 text; save it as UTF-8.") from None
    read = {".csv": _csv, ".jsonl": _jsonl}.get(path.suffix.lower(), _lines)
    with reading(path, "a prompts file"):
        found = list(read(path, text))
    rows = [row for row in found if isinstance(row, Row)]
    left_out = [why for why in found if isinstance(why, str)]
    if not rows:
        raise BadInput(f"The prompts file {path} holds no prompt{_listed(left_out)}. Write one a line.")
    _warn(left_out, len(found), str(path))
    return _distinct(rows)


def fitting(rows: Sequence[Row], model: Denoiser, added: int) -> list[Row]:
    """The rows out of which `added` adversarial tokens push no word; a warning names the others. BadInput for none."""
    room = model.room - added
    lengths = [len(model.tokens(row.prompt)) for row in rows]
    long = [f"row {row.case} has {length} tokens" for row, length in zip(rows, lengths, strict=True) if length > room]
    reads = f"{model.name} reads {room} tokens beside the {added} of this attack"
    if len(long) == len(rows):
        raise BadInput(f"No row fits{_listed(long)}: {reads}. Shorten the prompts.")
    _warn(long, len(rows), reads)
    return [row for row, length in zip(rows, lengths, strict=True) if length <= room]


def _warn(left_out: Sequence[str], count: int, where: str) -> None:
    if left_out:
        warnings.warn(
            f"{where}: {len(left_out)} of {count} rows cannot be used and are left out{_listed(left_out)}.",
            stacklevel=3,
        )


def _listed(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return f" ({'; '.join(reasons[:NAMED])}{more})" if reasons else ""


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """The same rows; of several with one case number the later ones are numbered on."""
    met: Counter[str] = Counter()
    out = []
    for row in rows:
        met[row.case] += 1
        out.append(row if met[row.case] == 1 else replace(row, case=f"{row.case}-{met[row.case]}"))
    return out


def digest(rows: Iterable[Row]) -> str:
    """A hash of rows, to tell whether a resumed attack is about the same ones."""
    return hashlib.sha256(json.dumps([asdict(row) for row in rows]).encode()).hexdigest()[:16]


def _csv(path: Path, text: str) -> Iterator[Row | str]:
    first = text.split("\n", 1)[0]
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    head = [name.strip().lower() for name in table.fieldnames or ()]
    places = {ours: next((name for name in names if name in head), None) for ours, names in COLUMNS.items()}
    if places["prompt"] is None:
        close = nearest(head[0] if head else "", COLUMNS["prompt"], f"column of {path}") if len(head) == 1 else ""
        raise BadInput(f"{path} has no column `prompt`; its first line should be {','.join(COLUMNS)}. {close}".strip())
    for name in head:
        if name not in KNOWN and (close := difflib.get_close_matches(name, COLUMNS, n=1, cutoff=NEAR)):
            raise BadInput(f"{path} has a column {name!r}; did you mean {close[0]!r}? Rename or remove it.")
    table.fieldnames = head
    for place, cells in enumerate(table, 1):
        found = {ours: (cells.get(name) or "").strip() if name else "" for ours, name in places.items()}
        why = "it has more cells than columns" if None in cells else None
        row = why or _row(found, place)
        yield f"line {table.line_num}: {row}" if isinstance(row, str) else row


def _row(found: Mapping[str, str], place: int) -> Row | str:
    """The row of its cells, or why it cannot be used."""
    prompt = " ".join(found["prompt"].split())
    if not prompt:
        return "the prompt is empty"
    seed = _whole(found["evaluation_seed"]) if found["evaluation_seed"] else _seed(prompt)
    if seed is None:
        return f"the seed {found['evaluation_seed'][:30]!r} is not a whole number from 0 to 2^63"
    guidance = _guidance(found["evaluation_guidance"])
    if isinstance(guidance, str):
        return guidance
    return Row(found["case_number"] or str(place), prompt, seed, guidance)


def _whole(text: str) -> int | None:
    """The whole number that a text spells, to the last digit; None where there is none that a seed can be."""
    spelled = re.fullmatch(r"\+?(\d{1,19})(\.0*)?", text)
    found = int(spelled[1]) if spelled else None
    return found if found is not None and found < 2**63 else None


def _guidance(text: str) -> float | str | None:
    try:
        found = float(text) if text else None
    except ValueError:
        return f"the guidance {text[:30]!r} is not a number"
    return found if found is None or 0 <= found <= 100 else f"the guidance {text[:30]} is not from 0 to 100"


def _jsonl(path: Path, text: str) -> Iterator[Row | str]:
    for at, line in enumerate(text.split("\n")[1:], 2):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            if told["broken"] and not told["pre"]:
                yield Row(str(told["case"]), str(told["adversarial"]), int(told["drawn_seed"]), told["guidance"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInput(f"{path}, line {at}: this is not valid in an attack.jsonl.") from None


def _lines(path: Path, text: str) -> Iterator[Row | str]:
    for at, line in enumerate(text.rstrip("\r\n").split("\n"), 1):
        prompt = " ".join(line.split())
        yield Row(str(at), prompt, _seed(prompt)) if prompt else f"line {at}: the prompt is empty"


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
