"""The before/after grid: what it chooses to show, and the picture itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.pages.gallery import draw_grid, rows_for
from benchmarks.pictures.grid import Line, Pair, Verdict, fitted, grid
from benchmarks.suites.suite import load_suite
from erase.concept import Concept
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from generators.pocket.canvas.words import SYNONYMS
from tests.benchmarks.doubles import Painter, Reader, turned
from tests.toys.denoiser import Toy

POCKET = load_suite("pocket-canvas").model_copy(update={"clip": None})
# Where the pictures of a grid without a subtitle begin, by the layout's own numbers.
LEFT, TOP, SIDE, GAP, CAPTION = 28 + 116, 28 + 26 + 10 + 34 + 28, 128, 4, 28


def lines(columns: int = 2) -> list[Line]:
    pairs = tuple(Pair(Shot(k, f"prompt {k}"), "Van_Gogh", "Cats") for k in range(columns))
    return [Line("Target", "should be gone", pairs, True), Line("Neighbours", "should stay", pairs, False)]


def flat(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 64, 64)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_every_picture_stands_in_its_place(tmp_path: Path) -> None:
    before, after = flat([0.1, 0.2, 0.3, 0.4]), flat([0.9, 0.8, 0.7, 0.6])
    page = read(grid(before, after, lines(), tmp_path / "grid.png", "Title"))
    row_height = CAPTION + SIDE + 6 + 18
    assert page.shape == (TOP - CAPTION + 2 * row_height + 28 - 14, 2 * 28 + 116 + 2 * (2 * SIDE + GAP) + 20, 3)
    for row in range(2):
        for column in range(2):
            y = TOP + row * row_height + SIDE // 2
            x = LEFT + column * (2 * SIDE + GAP + 20) + SIDE // 2
            index = 2 * row + column
            assert page[y, x, 0] == pytest.approx(255 * float(before[index, 0, 0, 0]), abs=1)
            assert page[y, x + SIDE + GAP, 0] == pytest.approx(255 * float(after[index, 0, 0, 0]), abs=1)
    assert (page[0] == 255).all()
    assert (page[:, -1] == 255).all()


def test_verdicts_make_room_and_show_their_colour(tmp_path: Path) -> None:
    before, after = flat([0.1] * 4), flat([0.9] * 4)
    plain = read(grid(before, after, lines(), tmp_path / "plain.png", "Title"))
    good = [(Verdict(("Cats", "Van Gogh")), Verdict(("Cats", "Sketch"), True))] * 4
    bad = [(Verdict(("Cats", "Van Gogh")), Verdict(("Cats", "Sketch"), False))] * 4
    pages = [
        read(grid(before, after, lines(), tmp_path / f"{n}.png", "Title", verdicts=v))
        for n, v in enumerate((good, bad))
    ]
    assert pages[0].shape[0] == plain.shape[0] + 2 * 2 * 17

    def red(page: np.ndarray) -> bool:
        return bool(((page[..., 0] > 150) & (page[..., 1] < 60)).any())

    assert (red(pages[0]), red(pages[1])) == (False, True)


@pytest.mark.parametrize(("strength", "red"), [(1.0, False), (0.0, True)])
def test_a_target_that_is_still_there_is_marked(tmp_path: Path, strength: float, red: bool) -> None:
    painter = Painter(POCKET)
    edit = turned(painter, "Van_Gogh", "Watercolor")
    work = draw_grid(
        painter,
        edit,
        tmp_path / "grid.png",
        settings=JudgeSettings(probe=Reader(POCKET), strength=strength),
        suite=POCKET,
    )
    page = read(drain(work))
    assert bool(((page[..., 0] > 150) & (page[..., 1] < 60)).any()) == red


def test_pictures_of_any_size_and_a_file_that_is_whole(tmp_path: Path) -> None:
    for size, side in ((16, 128), (64, 128), (100, 100), (512, 192)):
        images = torch.rand(4, 3, size, size)
        page = read(grid(images, images, lines(), tmp_path / "deep" / "grid.png", "Title"))
        assert page.shape[1] == 2 * 28 + 116 + 2 * (2 * side + GAP) + 20
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["grid.png"]


def test_counts_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 pairs"):
        grid(flat([0.1] * 3), flat([0.1] * 4), lines(), tmp_path / "grid.png", "Title")
    with pytest.raises(ValueError, match="verdicts"):
        grid(flat([0.1] * 4), flat([0.1] * 4), lines(), tmp_path / "g.png", "T", verdicts=[(Verdict(()), Verdict(()))])


def test_text_that_is_too_wide_is_cut() -> None:
    assert fitted("short", 13, 200) == "short"
    cut = fitted("a very long prompt about nothing in particular", 13, 80)
    assert cut.endswith("…")
    assert len(cut) < 20


def test_rows_for_a_style() -> None:
    target, reworded, near, far = rows_for(Painter(POCKET), ["van_gogh"], POCKET)
    assert [row.gone for row in (target, reworded, near, far)] == [True, True, False, False]
    assert {pair.style for pair in (*target.pairs, *reworded.pairs)} == {"Van_Gogh"}
    assert len({pair.object for pair in target.pairs}) == 3
    for pair, synonym in zip(reworded.pairs, SYNONYMS["Van_Gogh"][1:], strict=False):
        assert synonym in pair.shot.prompt
    kept = {pair.style for pair in (*near.pairs, *far.pairs)}
    assert len(kept) == 6
    assert not kept & {"Van_Gogh", "Seed_Images"}
    for row in (reworded, near, far):
        assert [(p.shot.seed, p.object) for p in row.pairs] == [(p.shot.seed, p.object) for p in target.pairs]


def test_neighbours_are_those_of_the_models_text_space() -> None:
    class Reading(Painter):
        """Knows one fact: cats are much like horses and nothing like the sea."""

        def encode(self, prompts):  # type: ignore[no-untyped-def]
            codes = super().encode(prompts)
            mixed = codes.tokens.clone()
            for row, prompt in enumerate(prompts):
                mixed[row, 0, 0] = {"Cats": 3.0, "Horses": 2.9, "Sea": -3.0}.get(prompt, 0.0)
            return type(codes)(mixed)

    lines = rows_for(Reading(POCKET), [Concept(name="Cats")], POCKET)
    assert lines[-2].pairs[0].object == "Horses"
    assert lines[-1].pairs[0].object == "Sea"
    assert lines[0].pairs[0].style == "Seed_Images"


def test_several_and_foreign_concepts() -> None:
    lines = rows_for(Painter(POCKET), ["Cats", "Van Gogh", "Dogs", "Sketch"], POCKET)
    assert [len(line.pairs) for line in lines] == [3, 1, 3, 3, 3]
    shown = [pair.shot.prompt for line in lines[:2] for pair in line.pairs]
    for word, prompt in zip(("Cats", "Van Gogh", "Dogs", "Sketch"), shown, strict=True):
        assert word in prompt
    foreign = rows_for(Toy(), [Concept(name="Eiffel tower")], POCKET)
    assert all("Eiffel tower" in pair.shot.prompt for line in foreign[:2] for pair in line.pairs)
    assert len({pair.shot.prompt for pair in foreign[1].pairs}) == 3
    with pytest.raises(BadInput, match="at least one"):
        rows_for(Painter(POCKET), [], POCKET)


def test_nothing_is_left_when_every_style_is_erased() -> None:
    styles = [label for label in POCKET.styles if label != "Seed_Images"]
    lines = rows_for(Painter(POCKET), styles, POCKET)
    assert {line.heading for line in lines} == {"Target", "", "Paraphrase"}


def test_the_grid_of_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    painter, reader = Painter(POCKET), Reader(POCKET)
    edit = turned(painter, "Van_Gogh", "Watercolor")
    report = drain(judge(painter, edit, settings=JudgeSettings(probe=reader), suite=POCKET))
    painter.drawn.clear()
    work = draw_grid(
        painter, edit, tmp_path / "grid.png", settings=JudgeSettings(probe=reader), suite=POCKET, report=report
    )
    page = read(drain(work))
    half = len(painter.drawn) // 2
    assert painter.drawn[:half] == painter.drawn[half:]
    assert torch.equal(painter.network["unet"].weight, torch.eye(35))
    top = TOP + 25  # a subtitle stands above
    one, other = (page[top : top + SIDE, x : x + SIDE] for x in (LEFT, LEFT + SIDE + GAP))
    assert (one != other).any()
    row = CAPTION + SIDE + 6 + 2 * 17 + 18
    neighbour = [page[top + 2 * row : top + 2 * row + SIDE, x : x + SIDE] for x in (LEFT, LEFT + SIDE + GAP)]
    assert (neighbour[0] == neighbour[1]).all()
    assert neighbour[0].std() > 1
    assert page.shape[1] < 1000  # readable at the width of a README
