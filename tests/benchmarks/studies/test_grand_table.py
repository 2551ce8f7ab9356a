"""The grand table: what is committed is what the documentation shows, and a new report changes both."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.attacks.run import AttackReport
from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.report import Report, Score
from benchmarks.studies import grand_table
from benchmarks.studies.common import Round
from benchmarks.studies.grand_table import BEGIN, DOCS, END, KEPT, ROUNDS, beside, finished, markdown, written
from benchmarks.studies.retrained import Retrained
from benchmarks.suites.suite import load_suite
from benchmarks.sweeps.leaderboard import Entry, Leaderboard
from erase.errors import BadInput
from erase.methods.registry import build
from erase.work import drain
from tests.benchmarks.doubles import Painter, Reader, turned

CANVAS = load_suite(grand_table.SUITE).model_copy(update={"sampler": "own", "clip": None})


def test_the_documentation_shows_the_committed_table() -> None:
    shown = DOCS.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip()
    assert shown == markdown(Leaderboard.read(KEPT.read_text(encoding="utf-8")))


def test_every_line_is_a_method_and_a_preset_that_exist() -> None:
    for round_, count in ROUNDS.items():
        if round_ == Retrained():
            assert {target.label for target in grand_table.targets(CANVAS, count)} <= set(Retrained().unseen)
            continue
        build(round_.method, round_.preset)
        assert round_.keep_others and 1 <= count <= 34
    row = grand_table.targets(CANVAS, 34)
    assert len(set(row)) == 34 and {target.kind for target in row[: grand_table.FEW]} == {"style", "object"}
    with pytest.raises(BadInput, match="line of the grand table"):
        next(grand_table.run(Painter(CANVAS), Path("nowhere"), "ucc"))


def test_what_is_there_becomes_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(grand_table, "KEPT", tmp_path / "results" / "grand.json")
    monkeypatch.setattr(grand_table, "DOCS", tmp_path / "page.md")
    with pytest.raises(BadInput, match="no report of the grand table"):
        finished(tmp_path)
    painter, round_ = Painter(CANVAS), Round("uce", keep_others=True)
    (tmp_path / "uce").mkdir()
    for label, into in (("Van_Gogh", "Rust"), ("Cats", "Dogs")):
        target = CANVAS.target(label)
        job = round_.job(target, CANVAS, painter)
        work = judge(
            painter, turned(painter, label, into), [label], CANVAS, JudgeSettings(probe=Reader(CANVAS)), job=job
        )
        (tmp_path / "uce" / f"{label}.json").write_text(drain(work).json_text(), encoding="utf-8")
    edit = Report.read(tmp_path / "uce" / "Cats.json").about["edit"]
    job = {"edit": edit, "knobs": grand_table.ATTACK.model_dump(mode="json")}  # type: ignore[attr-defined]
    none = {"value": None, "n": 0, "low": None, "high": None, "baseline": None, "better": "high", "probe": ""}
    rate = {"n": 20, "low": 0.05, "high": 0.66, "baseline": 1.0, "better": "low", "probe": "eye"}
    scores = {
        **{name: Score(**none, note="unscored") for name in ("FID", "CLIP")},
        "pre_ASR": Score(**rate, value=0.05),
        "ASR": Score(**rate, value=0.4),
    }
    place = tmp_path / "uce" / "attacks" / "Cats-unlearndiffatk" / "report.json"
    AttackReport(job=job, scores=scores).write(place)
    AttackReport(job=job | {"edit": "another"}, scores=scores).write(
        tmp_path / "uce" / "attacks" / "Van_Gogh-unlearndiffatk" / "report.json"
    )
    (tmp_path / "page.md").write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", encoding="utf-8")
    found = written(finished(tmp_path))
    assert "| `uce` | 1 + 1 | 100.0 (86–100) | 100.0 (" in found and "| **100.0** |" in found
    assert "| – | 5.0 → 40.0 (5–66) |\n" in found
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page == f"above\n{BEGIN}\n{found}\n{END}\nbelow\n"
    assert markdown(Leaderboard.read((tmp_path / "results" / "grand.json").read_text(encoding="utf-8"))) == found

    real, words = Path.write_text, ["grand", "--render", "--out", str(tmp_path)]
    (tmp_path / "uce" / "Cats.json").unlink()
    with monkeypatch.context() as crowded:

        def full(self: Path, text: str, **options: Any) -> int:
            if "page" not in self.stem:
                return real(self, text, **options)
            real(self, text[:9], **options)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        crowded.setattr(Path, "write_text", full)
        assert main(words) == 1
    assert "The disk is full" in capsys.readouterr().err
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == page
    assert main(words) == 0
    assert "| `uce` | 1 + 0 |" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_methods_are_compared_on_the_targets_both_erased() -> None:
    def entry(label: str, concept: str, ua: float) -> Entry:
        one = {"n": 20, "low": 0.0, "high": 1.0, "baseline": 0.0, "better": "high", "probe": "eye"}
        scores = {"UA": ua, "IRA": 0.5, "CRA": 0.5, "invalid": 0.5}
        return Entry(
            label=label, method=label, concept=concept, kind="style", suite="x",
            scores={name: Score(value=value, **one) for name, value in scores.items()},
        )  # fmt: skip

    first = [entry("uce", name, ua) for name, ua in (("a", 0.8), ("b", 0.9), ("c", 1.0), ("d", 0.0))]
    second = [entry("esd", name, ua) for name, ua in (("a", 0.9), ("b", 0.9), ("c", 0.8), ("e", 0.0))]
    third = [entry("doco", name, ua) for name, ua in (("a", 0.7), ("b", 0.9))]
    table = Leaderboard(name="x", entries=(*first, *second, *third), lines=())
    head, _, *rows = beside(table)
    assert head[0] == "minus `uce`"
    assert rows[0][:3] == ["`esd`", "3", "-3.3 (-20.0 to +10.0)"]
    assert rows[1] == ["`doco`", "2", "-5.0", "+0.0", "+0.0", "+0.0"]
