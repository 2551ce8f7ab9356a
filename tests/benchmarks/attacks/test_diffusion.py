"""The attacks: their mathematics, and an engine in which no row feels its neighbours."""

from __future__ import annotations

import errno
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.attacks.diffusion.paraphrase import misspelt, reordered, sentences
from benchmarks.attacks.diffusion.unlearndiffatk import adam, project, sample, straight_through
from benchmarks.attacks.engine import Attack, PromptState, chase
from benchmarks.attacks.log import Book
from benchmarks.attacks.registry import attack_names, build
from benchmarks.attacks.run import AttackReport, attack, curve, rates
from benchmarks.attacks.settings import AttackSettings
from benchmarks.report import Report
from benchmarks.speed.attack import speed_unlearndiffatk
from benchmarks.speed.methods import Plan
from benchmarks.suites.prompts import Row, file_rows, fitting, suite_rows
from benchmarks.suites.suite import load_suite
from erase.edit import Edit
from erase.errors import BadInput
from erase.rng import stream
from erase.work import Step, Work, drain
from tests.benchmarks.attacks.attacking import GOGH, Says, aim_at, rows, shaken
from tests.benchmarks.doubles import TINY
from tests.toys.compare import same_bits, weights
from tests.toys.denoiser import Toy

SEARCHES = {
    "unlearndiffatk": {"budget": 6, "iterations": 3},
    "hard-prompt": {"budget": 6, "check": 3},
    "ring-a-bell": {"budget": 6, "population": 8, "checks": 2},
    "inversion": {"budget": 4, "images": 3, "pictures_per_step": 2, "checks": 2},
    "random": {"budget": 3},
    "seed-search": {"budget": 3},
    "paraphrase": {"budget": 5},
    "inpaint": {"budget": 2, "steps": 4},
    "completion": {"budget": 2, "steps": 21},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def made(name: str, **knobs: Any) -> Attack:
    return build(name, None, {**SEARCHES[name], **knobs})


def hunted(toy: Toy, how: Attack, some: list[Row], *, batch: int, edit: Edit | None = None) -> dict[str, PromptState]:
    found: dict[str, PromptState] = {}
    aim = aim_at(toy, some, edit or shaken(toy))
    drain(chase(how, aim, some, lambda each, hit: found.update({each.row.case: each}), batch))
    return found


# The simplex, the gradient and the optimiser of UnlearnDiffAtk


def bisected(line: Tensor) -> Tensor:
    """The projection to the simplex by bisecting the threshold: an independent way to the same point."""
    low, high = float(line.min()) - 1, float(line.max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (line - middle).clamp_min(0).sum() > 1 else (low, middle)
    return (line - (low + high) / 2).clamp_min(0)


def test_projected_lines_are_distributions_and_the_nearest_ones() -> None:
    lines = torch.randn(5, 3, 40, dtype=torch.float64, generator=stream(0, "lines"))
    found = project(lines)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(5, 3, dtype=torch.float64))
    for line, point in zip(lines.flatten(0, 1), found.flatten(0, 1), strict=True):
        torch.testing.assert_close(point, bisected(line), atol=1e-9, rtol=0)
    torch.testing.assert_close(project(found), found)  # what is in the simplex stays


def test_the_gradient_passes_straight_through_and_is_clipped() -> None:
    table = torch.randn(7, 4, dtype=torch.float64, generator=stream(0, "table"))
    onehot = torch.eye(7, dtype=torch.float64)[[2, 5]][None].requires_grad_(True)
    pull = 3 * torch.randn(1, 2, 4, dtype=torch.float64, generator=stream(0, "pull"))
    ((onehot @ table) * pull).sum().backward()
    assert onehot.grad is not None
    expected = torch.nn.functional.hardtanh(onehot.grad)
    torch.testing.assert_close(straight_through(pull, table), expected)
    assert 0 < (expected.abs() == 1).sum() < expected.numel()


def test_the_optimiser_is_adam_with_coupled_decay() -> None:
    start = torch.rand(1, 3, 11, dtype=torch.float64, generator=stream(0, "start"))
    theirs = start.clone().requires_grad_(True)
    reference = torch.optim.Adam([theirs], lr=0.01, weight_decay=0.1)
    ours, m, v = start, torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, 21):
        gradient = torch.randn(start.shape, dtype=torch.float64, generator=stream(0, "gradient", step))
        theirs.grad = gradient.clone()
        reference.step()
        ours, m, v = adam(ours, gradient, m, v, torch.full((1, 1, 1), float(step), dtype=torch.float64), 0.01, 0.1)
        torch.testing.assert_close(ours, theirs.detach())


def test_tokens_are_sampled_as_often_as_their_distribution_says() -> None:
    A = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3])
    uniform = torch.rand(4000, generator=stream(0, "u"), dtype=torch.float64)
    seen = Counter(sample(A.expand(4000, 5), uniform).tolist())
    assert set(seen) == {1, 3, 4}
    assert [seen[token] / 4000 for token in (1, 3, 4)] == pytest.approx([0.5, 0.2, 0.3], abs=0.03)
    # Where the draw falls on an edge it belongs to the token that begins there, never to one of no probability.
    assert sample(A.expand(2, 5), torch.tensor([0.0, 0.5])).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("budget", "levels", "each"),
    [("paper", 50, 40), ("standard", 10, 40), ("quick", 5, 20), (7, 1, 7), (5000, 50, 100)],
)
def test_noise_levels_in_order(budget: str | int, levels: int, each: int) -> None:
    rounds = build("unlearndiffatk", budget).rounds  # type: ignore[attr-defined]
    assert (len(rounds), {steps for _, steps in rounds}) == (levels, {each})
    times = [round(1000 * level) for level, _ in rounds]
    assert times == sorted(times)
    assert set(times) <= set(range(10, 991, 20))
    if levels == 50:
        assert times == list(range(10, 991, 20))


def test_a_prefix_shifts_the_prompt_and_drops_none_of_it() -> None:
    toy, some = Toy(), rows(1)
    found = hunted(toy, made("unlearndiffatk"), some, batch=1)["0"].last
    assert found is not None and found.tokens is not None
    assert list(found.tokens[3:]) == toy.tokens(some[0].prompt)
    assert len(toy.tokens("Van Gogh")) > 1
    assert not set(found.tokens[:3]) & toy.specials


def test_found_tokens_denoise_better_than_random_ones() -> None:
    toy, row = Toy(), rows(1)[0]
    how, edit = made("unlearndiffatk", budget=60, iterations=60, lr=0.05), shaken(toy, 0.3)
    aim = aim_at(toy, [row], edit)
    (found,) = drain(how.advance(aim, [how.begin(aim, row)]))

    def loss(tokens: list[int]) -> float:
        """The search's own loss at its own noise level, on noise it has not seen."""
        noise, t = torch.randn(24, *toy.latent_shape, generator=stream(1, "held out")), torch.full((24,), 510)
        with torch.no_grad(), edit.applied(toy.network):
            ids = toy.frame([tokens])
            codes = toy.read(ids, toy.embed(ids)).repeat(24)
            return float((toy.predict(toy.path.add_noise(aim.clean[row], noise, t), t, codes) - noise).square().mean())

    own = toy.tokens(row.prompt)
    others = [loss([*torch.randint(2, 2000, (3,), generator=stream(2, "other", k)).tolist(), *own]) for k in range(20)]
    assert found is not None and found.tokens is not None
    assert sum(loss(list(found.tokens)) < other for other in others) >= 18


def test_p4d_k_keeps_the_prompts_words_and_puts_free_ones_among_them() -> None:
    toy, row = Toy(), rows(4)[3]
    found = hunted(toy, made("hard-prompt", variant="p4d-k"), [row], batch=1)["3"].last
    own = toy.tokens(row.prompt)
    assert found is not None and found.tokens is not None
    assert [token for place, token in enumerate(found.tokens, 1) if place % 4] == own
    assert len(found.tokens) == len(own) + len(own) // 3


def test_pez_finds_tokens_that_clip_finds_more_like_the_picture() -> None:
    toy, row, losses = Toy(), rows(1)[0], []
    aim = aim_at(toy, [row])
    with pytest.raises(BadInput, match="names none"):
        made("hard-prompt", variant="pez").begin(aim, row)
    aim.suite = TINY.model_copy(update={"clip": "pocket-clip"})
    how = made("hard-prompt", variant="pez", budget=60, check=60, tokens=6)
    (found,) = drain(how.advance(aim, [how.begin(aim, row)]), lambda step: losses.append(step.loss.get("loss", 9.0)))
    assert min(losses[-20:]) < losses[1] - 0.05
    assert found is not None and found.tokens is None
    assert found.text


# The engine


@pytest.mark.parametrize("name", SEARCHES)
def test_a_row_does_not_feel_who_shares_its_batch(name: str) -> None:
    toy, some = Toy(dtype=torch.float64), rows(4)
    alone, together = (hunted(toy, made(name), some, batch=batch) for batch in (1, 8))
    tries = [(found.last.text, found.last.tokens, found.last.spent, found.tries) for found in alone.values()
             if found.last is not None]  # fmt: skip
    assert len(tries) == len(some)
    assert tries == [(found.last.text, found.last.tokens, found.last.spent, found.tries)
                     for found in (together[case] for case in alone) if found.last is not None]  # fmt: skip
    assert len({text for text, *_ in tries}) > 1
    for case, found in alone.items():
        assert found.image is not None
        torch.testing.assert_close(found.image, together[case].image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["random", "unlearndiffatk"])
def test_rows_and_seeds_draw_from_streams_of_their_own(name: str) -> None:
    toy, some = Toy(), rows(3)
    found = [each.last for each in hunted(toy, made(name), some, batch=8).values()]
    assert len({each.tokens[:3] for each in found if each is not None and each.tokens is not None}) == 3
    first, second = (aim_at(toy, some[:1], shaken(toy), seed=seed) for seed in (0, 1))
    tries = []
    for aim in (first, second):
        how = made(name)
        tries.append(drain(how.advance(aim, [how.begin(aim, some[0])]))[0])
    assert tries[0] is not None and tries[1] is not None
    assert tries[0].tokens != tries[1].tokens


@pytest.mark.parametrize("name", SEARCHES)
def test_no_attack_spends_more_than_its_budget_or_changes_the_model(name: str) -> None:
    toy, how = Toy(), made(name)
    before = weights(toy.network)
    found = hunted(toy, how, rows(2), batch=8)
    assert all(0 < each.last.spent <= how.budget for each in found.values() if each.last)
    assert same_bits(weights(toy.network), before)


@pytest.mark.parametrize("name", SEARCHES)
def test_stopped_at_any_step_the_model_is_as_it_was(name: str) -> None:
    toy, how, some = Toy(), made(name), rows(2)
    before = weights(toy.network)
    steps = sum(1 for _ in attack(toy, shaken(toy), "Van Gogh", how, AttackSettings(rows=some, **QUIET(0))))  # type: ignore[misc]
    assert steps > 3
    for stop in range(1, steps, max(1, steps // 4)):
        work = attack(toy, shaken(toy), "Van Gogh", how, AttackSettings(rows=some, **QUIET(0)))
        for _ in range(stop):
            next(work, None)
        work.close()
        assert same_bits(weights(toy.network), before)


def test_a_broken_row_leaves_at_once_and_the_next_one_enters() -> None:
    toy, some = Toy(), rows(5)
    aim = aim_at(toy, some)
    aim.reader = Says(lambda number, image: number in (0, 3))  # the first try of row 0, the second of row 1
    order: list[tuple[str, bool, int]] = []
    how = made("random", budget=3)
    drain(chase(how, aim, some, lambda each, hit: order.append((each.row.case, hit, each.tries)), 2))
    assert order[0] == ("0", True, 1)
    assert order[1] == ("2", True, 1) or order[1] == ("1", True, 2)
    assert sorted(case for case, *_ in order) == list("01234")
    assert all(tries == 3 for _, hit, tries in order if not hit)


def QUIET(pre: int) -> dict[str, Any]:
    """A reader that sees the concept in every unedited picture, then in `pre` of the edited ones, then never."""

    class Reader(Says):
        def __call__(self, images: Tensor):  # type: ignore[no-untyped-def]
            self.calls = getattr(self, "calls", 0) + 1
            first = self.calls == 1
            self.shows = lambda number, image: first or (self.calls == 2 and number - len(images) < pre)
            return super().__call__(images)

    return {"suite": TINY, "probe": Reader(), "confirm": Says(lambda *_: True), "utility": False}


# Scores, files, resuming


def line(**facts: Any) -> dict[str, Any]:
    return {"kept": True, "pre": False, "broken": False, "confirmed": False, "unedited_confirmed": True, "spent": 0,
            "seconds": 2.0, **facts}  # fmt: skip


def test_rates_count_what_they_say() -> None:
    lines = [line(pre=True, confirmed=True)] + [line(broken=True, spent=40, confirmed=n < 1) for n in range(2)]
    lines += [line() for _ in range(47)] + [line(kept=False)]
    scores = rates(lines, made("random"), Says(), Says(), Edit({}, {}))  # type: ignore[arg-type]
    assert (scores["pre_ASR"].value, scores["ASR"].value, scores["ASR_confirmed"].value) == (0.02, 0.06, 0.04)
    assert {score.n for score in scores.values()} == {50}
    # 1 of 50 and 30 of 142: Wilson's intervals as published tables need them, to one decimal.
    assert [round(100 * edge, 1) for edge in (scores["pre_ASR"].low, scores["pre_ASR"].high)] == [0.4, 10.5]
    assert scores["seconds_per_prompt"].value == 2.0
    assert curve(lines) == [(0, 0.02), (40, 0.06)]


def test_asr_never_stands_alone() -> None:
    scores = rates([line()], made("random"), Says(), None, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ASR without FID"):
        AttackReport(scores=scores)


def test_an_attack_ends_in_a_report_with_pictures(tmp_path: Path) -> None:
    toy = Toy()
    report = drain(
        attack(toy, shaken(toy), "van gogh", made("random"), AttackSettings(rows=rows(3), **QUIET(1)), folder=tmp_path)
    )
    assert (report.scores["pre_ASR"].value, report.scores["ASR"].value) == (1 / 3, 1 / 3)
    assert report.scores["FID"].unscored
    assert report.broken == ()
    assert (tmp_path / "attack.png").stat().st_size > 1000
    assert [json.loads(text)["case"] for text in (tmp_path / "attack.jsonl").read_text().splitlines()[1:]] == list(
        "012"
    )
    assert AttackReport.read(report.json_text()).json_text() == report.json_text()


def test_rows_the_unedited_model_fails_are_counted_and_left_out(tmp_path: Path) -> None:
    toy, options = Toy(), QUIET(0)
    options["probe"] = Says(lambda number, image: number in (0, 2))
    report = drain(attack(toy, shaken(toy), "van gogh", made("random"), AttackSettings(rows=rows(3), **options)))
    assert (report.scores["ASR"].n, report.excluded) == (2, {"the unedited model does not show the concept": 1})
    options["probe"] = Says()
    with pytest.raises(BadInput, match="in none of the 3 rows"):
        drain(
            attack(
                toy,
                shaken(toy),
                "van gogh",
                made("random"),
                AttackSettings(rows=rows(3), **options),
                folder=tmp_path / "x",
            )
        )
    assert not (tmp_path / "x" / "attack.jsonl").exists()


@pytest.mark.parametrize("name", ["random", "inversion"])
def test_a_killed_attack_goes_on_and_does_no_row_twice(name: str, tmp_path: Path) -> None:
    toy, some, how = Toy(dtype=torch.float64), rows(4), made(name)

    def begun(folder: Path | None, how: Attack = how) -> Work[AttackReport]:
        # A verdict that depends on nothing but the picture, and is as good as a coin.
        reader = Says(lambda number, image: float(image.double().mean()) * 1e4 % 1 > 0.7)
        return attack(
            toy, None, "Van Gogh", how, AttackSettings(suite=TINY, rows=some, probe=reader, batch=1), folder=folder
        )

    steps: list[Step] = []
    whole = drain(begun(None), steps.append)
    work = begun(tmp_path)
    for _ in range(len(steps) - 3):
        next(work)
    work.close()
    book = tmp_path / "attack.jsonl"
    booked = [json.loads(text)["case"] for text in book.read_text().splitlines()[1:]]
    assert 0 < len(booked) < 4
    book.write_bytes(book.read_bytes() + b'{"case": "3", "pro')  # torn by a kill
    again = drain(begun(tmp_path))
    told = [json.loads(text)["case"] for text in book.read_text().splitlines()[1:]]
    assert sorted(told) == list("0123")
    assert told[: len(booked)] == booked
    assert [_without_time(row) for row in again.rows] == [_without_time(row) for row in whole.rows]
    changed = build(name, None, {**SEARCHES[name], "budget": 2})
    with pytest.raises(BadInput, match=r"another attack: its knobs was .* Choose another --out"):
        drain(begun(tmp_path, changed))


def test_a_disk_that_fills_up_costs_the_row_being_booked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy, real = Toy(dtype=torch.float64), Book.add

    def begun(folder: Path | None) -> Work[AttackReport]:
        return attack(
            toy,
            None,
            "Van Gogh",
            made("inversion"),
            AttackSettings(rows=rows(3), suite=TINY, batch=1, probe=Says()),
            folder=folder,
        )

    def full(self: Book, line: Mapping[str, Any]) -> None:
        if not self.lines:
            return real(self, line)
        (tmp_path / "attack.jsonl").open("a").write('{"case": "')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    whole = drain(begun(None))
    with monkeypatch.context() as crowded:
        crowded.setattr(Book, "add", full)
        with pytest.raises(OSError, match="No space left"):
            drain(begun(tmp_path))
    for again in (drain(begun(tmp_path)), drain(begun(tmp_path))):
        assert [_without_time(row) for row in again.rows] == [_without_time(row) for row in whole.rows]


@pytest.mark.parametrize("name", ["attack.jsonl", "learnt.safetensors"])
def test_what_an_attack_wrote_is_not_believed_when_damaged(name: str, tmp_path: Path) -> None:
    def begun() -> Work[AttackReport]:
        toy = Toy(dtype=torch.float64)
        return attack(
            toy,
            None,
            "Van Gogh",
            made("inversion"),
            AttackSettings(rows=rows(2), suite=TINY, batch=1, probe=Says()),
            folder=tmp_path,
        )

    drain(begun())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2] + b"\n")
    with pytest.raises(BadInput, match=rf"{name} is damaged; remove .* to attack anew"):
        drain(begun())


def _without_time(row: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


def test_without_an_edit_no_row_is_left_out() -> None:
    toy, options = Toy(), QUIET(0)
    options["probe"] = Says(lambda number, image: number < 1)
    report = drain(attack(toy, None, "Van Gogh", made("random"), AttackSettings(rows=rows(4), **options)))
    assert report.scores["pre_ASR"].n == 4
    assert report.scores["pre_ASR"].value == report.scores["pre_ASR"].baseline
    assert report.excluded == {}


# What paraphrases say


def test_paraphrases_keep_the_object_and_change_the_words() -> None:
    suite = load_suite("pocket-canvas")
    said = sentences(suite, "style", "Van_Gogh", "A Cats image in Van Gogh style.")
    assert said and all("Cats" in text and "Van Gogh" in text for text in said)
    things = sentences(suite, "object", "Cats", "A Cats image in Van Gogh style.")
    assert things and all("Cats" in text and "Van Gogh" in text for text in things)
    wrong = misspelt("Van Gogh", stream(0, "x"))
    assert "VanGogh" in wrong
    assert "Van Gogh" not in wrong
    assert reordered("A Cats image in Van Gogh style.", "Van Gogh")[0] == "Van Gogh, A Cats image in style"


def test_every_attack_has_a_file_presets_and_a_name() -> None:
    assert set(attack_names()) == set(SEARCHES)
    for name in attack_names():
        paper, standard, quick = (build(name, word).budget for word in ("paper", "standard", "quick"))
        assert paper >= standard >= quick == build(name).budget


# Rows from files


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_rows_come_from_suites_and_files(tmp_path: Path) -> None:
    found = suite_rows(load_suite("pocket-canvas"), GOGH, 25)
    assert len(found) == len({row.case for row in found}) == 25
    assert found[0].prompt == "A Architectures image in Van Gogh style."
    assert found[0].seed != found[20].seed
    table = 'case_number,prompt,evaluation_seed,evaluation_guidance\n7,"cats, van gogh",42,5.5\n9,dogs van gogh,,\n'
    first, second = file_rows(written(tmp_path, "p.csv", table))
    assert (first.case, first.prompt, first.seed, first.guidance) == ("7", "cats, van gogh", 42, 5.5)
    assert (second.case, second.guidance) == ("9", None)
    lines = file_rows(written(tmp_path, "p.txt", "a van gogh cat\nthe sea\n"))
    assert [(row.case, row.prompt) for row in lines] == [("1", "a van gogh cat"), ("2", "the sea")]
    assert lines[0].seed != lines[1].seed


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.txt", "", "holds no prompt"),
        ("p.csv", 'prompt\n""\n', "holds no prompt .line 2: the prompt is empty"),
        ("p.csv", "promt\na cat\n", "no column `prompt`.*column of .*Did you mean 'prompt'"),
        ("p.csv", "case_number,evaluation_seed\n1,2\n", "no column `prompt`"),
        ("p.csv", "prompt,evaluation_sed\na,1\n", "did you mean 'evaluation_seed'"),
        ("p.csv", "prompt\n" + "x" * 200_000 + "\n", "cannot be read as a prompts file"),
        ("p.jsonl", "{}\nnonsense\n", "line 2: this is not valid"),
    ],
)
def test_files_that_will_not_do(name: str, text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=says):
        file_rows(written(tmp_path, name, text))


def test_a_missing_file_and_a_row_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        file_rows(tmp_path / "none.txt")
    toy = Toy()
    long = Row("4", "many words " * 8, 1)
    with pytest.warns(UserWarning, match=r"toy reads 11 tokens beside the 3 of this attack: 1 of 2 rows.*row 4 has 14"):
        assert fitting([rows(1)[0], long], toy, 3) == [rows(1)[0]]
    with pytest.raises(BadInput, match="No row fits .row 4 has 14 tokens.: toy reads 11"):
        fitting([long], toy, 3)


@pytest.mark.parametrize(
    ("name", "budget", "says"),
    [
        ("unlearndifatk", 1, "Did you mean 'unlearndiffatk'"),
        ("random", 0, "budget = 0 is not valid"),
        ("random", -3, "budget = -3 is not valid"),
        ("random", "quik", "whole number from 1 on, or one of paper, standard, quick"),
    ],
)
def test_attacks_and_budgets_that_will_not_do(name: str, budget: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        build(name, budget)


def test_the_broken_rows_of_one_attack_are_rows_for_the_next(tmp_path: Path) -> None:
    toy, options = Toy(), QUIET(0)
    options["probe"] = Says(lambda number, image: number < 3 or number >= 6)
    report = drain(
        attack(toy, shaken(toy), "Van Gogh", made("random"), AttackSettings(rows=rows(3), **options), folder=tmp_path)
    )
    assert len(report.broken) == 3
    assert all((tmp_path / broken["image"]).is_file() for broken in report.broken)
    carried = file_rows(tmp_path / "attack.jsonl")
    assert [row.prompt for row in carried] == [broken["adversarial"] for broken in report.broken]
    with pytest.raises(BadInput, match="report"):
        Report.read(report.json_text())
    assert not math.isnan(report.scores["ASR"].value)


def test_side_by_side_and_one_by_one_do_the_same_work() -> None:
    toy = Toy()
    before = weights(toy.network)
    result = drain(speed_unlearndiffatk(toy, Plan(steps=2, suite=None), together=3, alone=2))
    # Two steps, and one drawing of four guided steps.
    assert result.ours_forwards == result.published_forwards == (2 + 4 * 2) / 2
    assert result.wall_ratio == result.published_seconds / result.ours_seconds
    assert "3 side by side" in result.note
    assert "none broken" in result.note
    assert same_bits(weights(toy.network), before)
