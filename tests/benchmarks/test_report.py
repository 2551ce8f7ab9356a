"""Reports: nothing is lost on the way to JSON and back, and no number travels alone."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from benchmarks.report import VERSION, Report, Score
from erase.errors import BadInput, DiskFull

FULL: dict[str, Any] = {
    "value": 0.92, "n": 100, "low": 0.85, "high": 0.96, "baseline": 0.03, "better": "high", "probe": "judge@1a2b",
    "interval": "wilson", "note": "Van_Gogh rows now read Watercolor 80%",
}  # fmt: skip
NAN = math.nan


def report() -> Report:
    scores = {
        "UA": Score(**FULL),
        "CLIP": Score(value=NAN, n=0, low=NAN, high=NAN, baseline=NAN, better="high", probe="CLIP", note="no CLIP"),
        "storage_bytes": Score(
            value=2**20, n=1, low=2**20, high=2**20, baseline=0.0, better="low", probe="bytes of the deltas"
        ),
    }
    return Report(job={"model": "m"}, scores=scores, excluded={"by the limit": 3}, rows=({"style": "Van_Gogh"},))


def test_the_json_has_the_promised_shape() -> None:
    document = json.loads(report().json_text())
    assert {"version", "status", "job", "scores", "excluded"} <= document.keys()
    assert {"value", "n", "low", "high", "baseline", "better", "probe", "note"} <= document["scores"]["UA"].keys()
    assert document["version"] == VERSION == 1
    assert document["scores"]["CLIP"]["value"] is None
    assert json.dumps(report().model_dump(mode="json"), allow_nan=False)


def test_a_report_survives_the_round_trip(tmp_path: Path) -> None:
    text = report().json_text()
    again = Report.read(text)
    assert again.json_text() == text
    assert again.scores["UA"] == report().scores["UA"]
    assert again.scores["CLIP"].unscored
    assert not again.scores["UA"].unscored
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    assert Report.read(path).json_text() == text


@pytest.mark.parametrize("status", ["started", "cancelled", "failed"])
def test_unfinished_reports_load(status: str) -> None:
    assert Report.read(Report(status=status, message="disk").json_text()).status == status  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"baseline": None}, "baseline"),
        ({"n": 0}, "needs n"),
        ({"probe": ""}, "probe"),
        ({"low": 0.95}, "does not hold"),
        ({"value": math.inf, "high": math.inf}, "finite"),
        ({"value": None, "note": ""}, "note"),
        ({"better": "up"}, "better"),
        ({"vlaue": 1}, "vlaue"),
    ],
)
def test_a_score_without_its_context_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Score(**(FULL | change))


@pytest.mark.parametrize("field", ["baseline", "n", "probe", "low", "high", "better"])
def test_no_field_can_be_left_out(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Score(**{name: value for name, value in FULL.items() if name != field})


def test_files_that_are_no_report(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no report"):
        Report.read(tmp_path / "none.json")
    with pytest.raises(BadInput, match="not a report"):
        Report.read("{")
    with pytest.raises(BadInput, match="version 2"):
        Report.read(json.dumps({"version": 2}))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_half_written_report_is_told_by_name(share: float, tmp_path: Path) -> None:
    path = tmp_path / "Cats.json"
    report().write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadInput, match=r"Cats.json is not a whole report, remove it"):
        Report.kept(path, {"model": "m"})
    assert Report.found(path) is None
    path.write_bytes(b"\xff\xfe" + whole)
    with pytest.raises(BadInput, match="not a whole report"):
        Report.read(path)
    with pytest.raises(BadInput, match="cannot be read"):
        Report.read(tmp_path)


def test_a_full_disk_leaves_the_report_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "Cats.json"
    report().write(path)
    before, real = path.read_bytes(), Path.write_text

    def full(self: Path, text: str, **options: Any) -> None:
        real(self, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(DiskFull, match="The disk is full"):
        Report().write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_table_shows_everything_people_compare() -> None:
    lines = report().table().splitlines()
    assert lines[0].split() == ["score", "value", "95", "%", "interval", "n", "unedited", "better", "probe"]
    head, ua = lines[0], next(line for line in lines if line.startswith("UA "))
    assert ua.index("92.0 %") == head.index("value")
    assert ua.index("judge@1a2b") == head.index("probe")
    for part in ("85.0 % – 96.0 % (wide)", "100", "3.0 %", "↑ higher"):
        assert part in ua
    assert "unscored" in next(line for line in lines if line.startswith("CLIP "))
    assert "1.0 MiB" in next(line for line in lines if line.startswith("storage_bytes"))
    assert "left out: 3 images, by the limit" in lines
    narrow = Report(scores={"UA": Score(**(FULL | {"low": 0.9, "high": 0.94}))}, marks=("collapsed: much",))
    assert "(wide)" not in narrow.table()
    assert "! collapsed: much" in narrow.table()


def test_an_interval_of_no_width_is_none() -> None:
    score = Score(value=0.5, n=2, low=0.5, high=0.5, baseline=0.5, better="high", probe="p")
    assert not score.has_interval
    assert "0.5 – 0.5" not in Report(scores={"CLIP": score}).table()
    wide = score.model_copy(update={"low": 0.4, "high": 0.6})
    assert wide.has_interval and "0.4 – 0.6" in Report(scores={"CLIP": wide}).table()
