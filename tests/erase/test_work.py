"""Long jobs: drained to their result, closed at the first trouble, and stamped with what went before."""

from __future__ import annotations

import pytest
import torch

from erase.work import Step, Work, drain, with_state


def counting(log: list[str]) -> Work[str]:
    """Three Steps and a result; writes down whether it was ended early."""
    try:
        for done in (1, 2, 3):
            yield Step("count", done, 3, state=lambda done=done: {"done": torch.tensor(done)})
        log.append("finished")
        return "result"
    finally:
        log.append("closed")


def test_a_job_is_drained_to_its_result() -> None:
    log: list[str] = []
    seen: list[int] = []
    assert drain(counting(log), lambda step: seen.append(step.done)) == "result"
    assert (seen, log) == ([1, 2, 3], ["finished", "closed"])


@pytest.mark.parametrize("stamped", [False, True])
def test_a_job_is_closed_when_its_watcher_fails(stamped: bool) -> None:
    log: list[str] = []

    def fail(step: Step) -> None:
        raise KeyboardInterrupt

    work = counting(log)  # held here, so that nothing but the closing can end it
    with pytest.raises(KeyboardInterrupt):
        drain(with_state(work, {}) if stamped else work, fail)
    assert log == ["closed"]


def test_the_state_of_earlier_jobs_is_carried_along() -> None:
    earlier = {"bank": torch.ones(2), "done": torch.tensor(-1)}
    states: list[dict[str, torch.Tensor]] = []
    assert (
        drain(with_state(counting([]), earlier), lambda step: states.append(step.state() if step.state else {}))
        == "result"
    )
    assert [int(state["done"]) for state in states] == [1, 2, 3]  # the job's own tensors win
    assert all(torch.equal(state["bank"], torch.ones(2)) for state in states)


def test_a_step_without_a_state_of_its_own_has_a_stale_one() -> None:
    def work() -> Work[None]:
        yield Step("one", 1, 2, state=lambda: {"own": torch.ones(1)})
        yield Step("one", 2, 2)

    own, none = with_state(work(), {"before": torch.zeros(1)})
    assert own.state is not None and none.state is not None
    assert (set(own.state()), own.stale) == ({"own", "before"}, False)
    assert (set(none.state()), none.stale) == ({"before"}, True)
