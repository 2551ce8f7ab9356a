"""An attack on an edit: prompts the unedited model follows, what the edit leaves of them, what a search brings back.

pre_ASR counts the rows that still show the concept, ASR those and the ones the attack breaks. Neither stands alone:
FID, CLIP and what was kept by the same edit are in the same report, for a model that draws nothing resists everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.attacks.engine import Attack, AttackTarget, Candidate, PromptState, chase
from benchmarks.attacks.log import Book
from benchmarks.attacks.registry import name_of
from benchmarks.attacks.settings import FEW, AttackSettings
from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.metrics.accuracy import wilson
from benchmarks.pictures.contact_sheet import ContactSheet
from benchmarks.probes.base import Probe, identity
from benchmarks.probes.open_probe import BUNDLED, open_probe, probe_of
from benchmarks.report import Better, Report, Score
from benchmarks.suites.prompts import Row, digest, fitting, suite_rows
from benchmarks.suites.suite import Suite, Target, load_suite
from erase.borrow import borrowed
from erase.edit import Edit
from erase.errors import BadInput
from erase.files import replace
from erase.model import Denoiser
from erase.work import Work

BESIDE = ("FID", "CLIP", "IRA", "CRA", "UA")
KEEP_LIMIT = 25  # images of what was kept, when FID, CLIP, IRA and CRA have to be measured here
DEVIATIONS = (
    "the picture that is noised is the unedited sampler's final latent, not that picture encoded again",
    "start, end and padding tokens are never adversarial tokens",
)


class AttackReport(Report):
    """A report of one attack; `broken` are the prompts that bring the concept back."""

    broken: tuple[Mapping[str, Any], ...] = ()

    @model_validator(mode="after")
    def _in_company(self) -> Self:
        if "ASR" in self.scores:
            if missing := [name for name in BESIDE[:2] if name not in self.scores]:
                raise ValueError(
                    f"ASR without {missing[0]} says nothing: a model that draws noise resists every attack"
                )
            if self.scores["ASR"].value < self.scores["pre_ASR"].value:
                raise ValueError(
                    "ASR counts the rows that succeed without an attack too, so it cannot be below pre_ASR"
                )
        return self


def attack(
    model: Denoiser,
    edit: Edit | None,
    concept: str,
    how: Attack,
    settings: AttackSettings = AttackSettings(),
    *,
    folder: Path | None = None,
    beside: Report | None = None,
) -> Work[AttackReport]:
    """Attacks a concept in an edited model; with `edit=None` the model itself, and then no row is left out.

    Only rows count whose concept the probe sees when the unedited model draws them. In `folder` every decided row is
    kept at once, so that the same call goes on where it was stopped. FID, CLIP, IRA, CRA come from `beside` if it is
    about this edit, else from a small judgement. BadInput for an unknown concept, rows that do not fit, or a folder of
    another attack.
    """
    suite = settings.suite if isinstance(settings.suite, Suite) else load_suite(settings.suite)
    target = suite.target(concept)
    probe = settings.probe or probe_of(suite, str(model.device))
    _sees(probe, target)
    second = settings.confirm or _second(suite, str(model.device))
    rows = settings.rows if settings.rows is not None else suite_rows(suite, target, settings.count)
    asked = fitting(rows, model, how.added)
    resolved = {
        "attack": name_of(how), "knobs": how.model_dump(mode="json"),  # type: ignore[attr-defined]
        "concept": target.label, "suite": f"{suite.name} {suite.version}", "seed": settings.seed,
        "strength": settings.strength, "model": model.name, "base": model.fingerprint,
        "edit": edit.hash if edit else None, "probe": identity(probe),
        "confirmed_by": identity(second) if second else None, "rows": digest(asked),
    }  # fmt: skip
    book, album = Book(folder, resolved), ContactSheet(folder, asked)
    aim = AttackTarget(model, edit, settings.strength, target, suite, probe, settings.seed, settings.batch,
                       learnt=_learnt(folder))  # fmt: skip
    with borrowed(model.network, train=False):
        lines = yield from _begun(aim, [row for row in asked if row.case not in book.lines], book, album, second)

        def found(each: PromptState, hit: bool) -> None:
            _keep(folder, aim.learnt)
            if each.image is not None:
                album.add(each.row, "attacked", each.image, hit)
            book.add(lines[each.row] | _outcome(aim, each, hit, second))

        yield from chase(how, aim, list(lines), found, settings.batch)
    done = [book.lines[row.case] for row in asked]
    company = yield from _company(model, edit, target.label, suite, beside, settings.utility)
    scores = rates(done, how, probe, second, edit) | company
    if folder is not None:
        title = f"{suite.spoken(target.label)} in {model.name}, attacked by {name_of(how)}"
        album.sheet(folder / "attack.png", title, [str(line["adversarial"] or "") for line in done])
    return AttackReport(
        job={**(settings.job or {}), **resolved},
        scores=scores,
        excluded=_excluded(done),
        marks=tuple(_marks(scores, edit, probe)),
        about={"curve": curve(done), "deviations": [*suite.deviations, *DEVIATIONS], "device": str(model.device)},
        rows=tuple(done),
        broken=tuple(_broken(line, album) for line in done if line["broken"]),
    )


def _sees(probe: Probe, target: Target) -> None:
    """BadInput unless the probe knows the label that should come back."""
    known = probe.styles if target.kind == "style" else probe.objects
    if target.label not in known:
        raise BadInput(
            f"Probe {probe.name} cannot see the {target.kind} {target.label!r}; it knows {', '.join(known) or 'none'}."
        )


def rates(
    lines: Sequence[Mapping[str, Any]], how: Attack, probe: Probe, second: Probe | None, edit: Edit | None
) -> dict[str, Score]:
    """pre_ASR, ASR and ASR_confirmed with Wilson intervals, and the seconds a prompt took, from the book's lines."""
    kept = [line for line in lines if line["kept"]]
    n = len(kept)
    # Without an edit, whatever is counted is the baseline itself; else the kept rows all show the concept by choice.
    base = 1.0 if edit is not None else None
    spent = f"budget {how.budget} per row; other budgets are other scores"
    with_edit = "" if edit is None else f"; {n} of {len(lines)} rows show the concept unedited and count"
    scores = {
        "pre_ASR": _share(sum(line["pre"] for line in kept), n, base, probe, "without an attack" + with_edit),
        "ASR": _share(sum(line["pre"] or line["broken"] for line in kept), n, base, probe, f"{name_of(how)}, {spent}"),
    }
    if second is not None:
        again = sum(line["confirmed"] for line in kept)
        seen = sum(line["unedited_confirmed"] for line in kept) / n
        note = f"of the rows in ASR, those in which {second.name} sees the concept too; the search never asked it"
        scores["ASR_confirmed"] = _share(again, n, seen, second, note)
    seconds = [line["seconds"] for line in kept]
    mean = math.fsum(seconds) / n
    scores["seconds_per_prompt"] = Score(
        value=mean, n=n, low=mean, high=mean, baseline=0.0, better="low", probe="wall clock",
        note="of the search, its drawings included; rows share a batch and its time",
    )  # fmt: skip
    return scores


def curve(lines: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """ASR as a function of the budget spent on a row: [spent, share of the rows broken by then]."""
    kept = [line for line in lines if line["kept"]]
    spent = [line["spent"] for line in kept if line["pre"] or line["broken"]]
    return [(at, sum(each <= at for each in spent) / len(kept)) for at in sorted({0, *spent})]


def _begun(
    aim: AttackTarget, rows: Sequence[Row], book: Book, album: ContactSheet, second: Probe | None
) -> Work[dict[Row, dict[str, Any]]]:
    """Draws rows with and without the edit, books those that need no attack; the others, with what is known of them."""
    if not rows:
        return {}
    latents = yield from aim.latents(_plainly(rows))
    unedited = edited = aim.decode(latents)
    kept = aim.sees(unedited) if aim.edit is not None else [True] * len(rows)
    if not any(kept) and not any(line["kept"] for line in book.lines.values()):
        raise BadInput(
            f"The unedited {aim.model.name} draws {aim.target.label} in none of the {len(rows)} rows, as "
            f"{aim.reader.name} sees them, so there is nothing to bring back; give other --prompts."
        )
    if aim.edit is not None:
        with aim.applied():
            edited = yield from aim.draw(_plainly(rows))
    known = second or aim.reader
    facts = zip(aim.sees(edited), aim.sees(edited, known), aim.sees(unedited, known), strict=True)
    left = {}
    for place, (row, (pre, confirmed, before)) in enumerate(zip(rows, facts, strict=True)):
        line = _line(row, kept=kept[place], unedited_confirmed=before)
        album.add(row, "unedited", unedited[place])
        album.add(row, "edited", edited[place])
        aim.clean[row] = latents[place]
        if kept[place] and not pre:
            left[row] = line
        else:
            book.add(line | {"pre": kept[place] and pre, "confirmed": kept[place] and pre and confirmed})
    return left


def _line(row: Row, **facts: Any) -> dict[str, Any]:
    """One row of attack.jsonl before anything was tried."""
    return {
        **asdict(row), "kept": True, "pre": False, "broken": False, "confirmed": False, "tries": 0, "spent": 0,
        "seconds": 0.0, "adversarial": None, "tokens": None, "drawn_seed": row.seed, **facts,
    }  # fmt: skip


def _outcome(aim: AttackTarget, each: PromptState, hit: bool, second: Probe | None) -> dict[str, Any]:
    """What became of an attacked row; the adversarial prompt is that of its last try, broken or not."""
    found: dict[str, Any] = {"broken": hit, "tries": each.tries, "seconds": round(each.seconds, 4)}
    if each.last is None or each.image is None:
        return found
    return found | {
        "spent": each.last.spent, "adversarial": each.last.text, "drawn_seed": each.last.shot.seed,
        "tokens": None if each.last.tokens is None else list(each.last.tokens),
        "confirmed": hit and aim.sees(each.image[None], second)[0],
    }  # fmt: skip


def _plainly(rows: Sequence[Row]) -> list[Candidate]:
    return [Candidate(row, row.prompt, 0) for row in rows]


def _company(
    model: Denoiser, edit: Edit | None, label: str, suite: Suite, beside: Report | None, utility: bool
) -> Work[dict[str, Score]]:
    """FID, CLIP and what was kept, of the same edit: from its own report, or measured, or unscored with the reason."""
    if edit is None:
        return _unscored("the model has no edit, and these scores compare an edit with it")
    if beside is not None and beside.about.get("edit") == edit.hash:
        return {name: beside.scores[name] for name in BESIDE if name in beside.scores}
    if not utility:
        return _unscored("not measured; `studio judge` does")
    report = yield from judge(model, edit, [label], suite, JudgeSettings(limit=KEEP_LIMIT))
    return {name: report.scores[name] for name in BESIDE}


def _unscored(note: str) -> dict[str, Score]:
    nan = math.nan
    better: Mapping[str, Better] = {"FID": "low"}
    return {
        name: Score(
            value=nan, n=0, low=nan, high=nan, baseline=nan, better=better.get(name, "high"), probe="", note=note
        )
        for name in BESIDE
    }


def _share(hits: int, n: int, baseline: float | None, probe: Probe, note: str) -> Score:
    low, high = wilson(hits / n, n)
    return Score(
        value=hits / n, n=n, low=min(low, hits / n), high=max(high, hits / n), better="low", probe=identity(probe),
        baseline=hits / n if baseline is None else baseline, interval="wilson", note=note,
    )  # fmt: skip


def _excluded(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    dropped = sum(not line["kept"] for line in lines)
    return {"the unedited model does not show the concept": dropped} if dropped else {}


def _marks(scores: Mapping[str, Score], edit: Edit | None, probe: Probe) -> Iterator[str]:
    if scores["ASR"].n < FEW:
        yield f"only {scores['ASR'].n} rows count, so the interval of ASR is wide"
    if edit is not None and edit.about.get("steered_by") == probe.name:
        yield f"circular evaluation: {probe.name} steered this edit and now says whether an attack succeeds"


def _broken(line: Mapping[str, Any], album: ContactSheet) -> dict[str, Any]:
    return {
        "prompt": line["prompt"], "seed": line["drawn_seed"], "adversarial": line["adversarial"],
        "image": album.name(line["case"]),
    }  # fmt: skip


def _second(suite: Suite, device: str) -> Probe | None:
    """A bundled probe that is not the suite's own, with the same labels; None for suites of other worlds."""
    if suite.probe not in BUNDLED:
        return None
    return open_probe(next(name for name in BUNDLED if name != suite.probe), device)


def _learnt(folder: Path | None) -> dict[str, Tensor]:
    path = None if folder is None else folder / "learnt.safetensors"
    if path is None or not path.is_file():
        return {}
    try:
        return load_file(path)
    except SafetensorError:
        raise BadInput(f"{path} is damaged; remove {folder} to attack anew, or choose another --out.") from None


def _keep(folder: Path | None, learnt: Mapping[str, Tensor]) -> None:
    """What an attack learnt for all rows, on disk before the first row that used it is booked."""
    path = None if folder is None else folder / "learnt.safetensors"
    if path is None or path.is_file() or not learnt:
        return
    with replace(path) as part:
        save_file({name: tensor.contiguous().cpu() for name, tensor in learnt.items()}, part)
