"""Progress: live on a terminal, a line now and then in a log, an honest estimate, and Ctrl-C that waits for a Step."""

from __future__ import annotations

import io
import os
import signal

import pytest

from app.cli.progress import Progress, duration, follow
from erase.work import Step, Work


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def printed(stream: io.StringIO, steps: int, seconds: float) -> str:
    now = [0.0]
    progress = Progress("erasing", stream, clock=lambda: now[0])
    for done in range(1, steps + 1):
        now[0] += seconds
        progress(Step("tune", done, steps, {"loss": 0.5}))
    progress.end()
    return stream.getvalue()


def test_a_log_gets_a_line_every_few_seconds() -> None:
    lines = printed(io.StringIO(), 1000, 0.02).splitlines()
    assert len(lines) == 4  # at once, and at 5, 10 and 15 of 20 seconds; the twentieth has the answer itself
    assert lines[0].startswith("erasing: tune 1/1000")
    assert lines[2].startswith("erasing: tune 5")
    assert "loss 0.5" in lines[2]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_gets_one_line_that_is_wiped_at_the_end() -> None:
    line = printed(Terminal(), 100, 0.05)
    shown = line.split("\r\x1b[K")
    assert "\n" not in line
    assert 30 <= len(shown) - 2 <= 50  # every other Step at most, for two come within a tenth of a second
    assert shown[-1] == ""


def test_the_estimate_is_the_time_that_is_left() -> None:
    stream, now = Terminal(), [0.0]
    progress = Progress("drawing", stream, clock=lambda: now[0])
    for done in range(1, 51):
        now[0] += 4.0
        progress(Step("draw", done, 100))
    assert "draw 50/100, about 3 min left" in stream.getvalue().split("\r\x1b[K")[-1]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_line_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.progress.width", lambda stream: columns)
    stream = Terminal()
    Progress("erasing " + "very " * 30 + "long", stream)(Step("draw", 1, 10))
    line = stream.getvalue().removeprefix("\r\x1b[K")
    assert 30 < len(line) < columns


def test_the_estimate_goes_down_while_a_count_stands() -> None:
    now = [0.0]
    progress, said = Progress("drawing", Terminal(), clock=lambda: now[0]), []
    for done in (0, 32, 32, 32, 32, 32, 64):
        now[0] += 10.0
        progress(Step("draw", done, 128))
        said.append(progress.left(Step("draw", done, 128), now[0]))
    assert said[0] is None
    assert said[1:6] == sorted(said[1:6], reverse=True)  # type: ignore[type-var]
    assert progress.left(Step("draw", 128, 128), now[0]) is None  # nothing is left, which is not worth a word


def test_a_count_has_its_unit() -> None:
    stream = io.StringIO()
    Progress("exporting", stream)(Step("prove", 5, unit="s"))
    assert stream.getvalue() == "exporting: prove 5 s\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (42, "42 s"), (100, "2 min"), (5400, "1 h 30 min"), (7900, "2 h 12 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_interrupt_waits_for_the_step_and_handlers_come_back() -> None:
    closed, finished = [], []

    def work() -> Work[str]:
        try:
            for done in range(1, 100):
                if done == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                    finished.append(done)  # the handler only takes a note, so this Step ends
                yield Step("count", done, 100)
        except GeneratorExit:
            closed.append(True)
            raise
        return "never"

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        follow(work(), "counting")
    assert (finished, closed) == ([3], [True])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_does_not_wait() -> None:
    reached = []

    def work() -> Work[str]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(True)
        yield Step("count", 1, 1)
        return "never"

    with pytest.raises(KeyboardInterrupt):
        follow(work(), "counting")
    assert not reached
