"""Suites: what they ask for, how names are found, and what a bad file is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.probes.open_probe import probe_of
from benchmarks.suites.suite import Target, load_suite, suite_names
from erase.errors import BadInput
from generators.pocket.canvas import words
from tests.benchmarks.doubles import TINY, write_suite


def test_the_bundled_suites_speak_the_pocket_vocabulary() -> None:
    pocket = ["pocket-canvas", "pocket-canvas-quick", "pocket-canvas-small"]
    suite = [f"unlearncanvas-{tier}" for tier in ("full", "small", "standard")]
    assert suite_names() == ["artists", "imagenette", "nudity", *pocket, *suite]
    for name in pocket:
        one = load_suite(name)
        assert (one.styles, one.objects, one.photo) == (words.THEMES, words.OBJECTS, words.PLAIN)
        assert one.sentence("Seed_Images", "Cats") == "A Cats image in Photo style."
        assert one.sentence("Van_Gogh", "Towers") == words.canonical("Van_Gogh", "Towers")
        assert one.seeds == (188, 288, 588, 688, 888)[: 3 if name.endswith("quick") else 5] and one.grid_seeds == (188,)


@pytest.mark.parametrize(
    ("name", "images", "target"), [("artists", 36 * 2 + 6 * 3, "Van Gogh"), ("imagenette", 50, "church")]
)
def test_suites_for_real_models_draw_what_they_say(name: str, images: int, target: str) -> None:
    one = load_suite(name)
    cells = one.shots([target])
    assert len(cells) == len({cell.shot for cell in cells}) == images
    shows = [cell for cell in cells if target in cell.shot.prompt]
    assert shows == [cell for cell in cells if target in (cell.style, cell.object)]
    with pytest.raises(BadInput, match=f"Suite {name} is read by a CLIP, which is not shipped"):
        probe_of(one)
    reader = probe_of(load_suite(name, probe="clip:pocket-clip"))
    assert {*one.styles, *one.objects} <= {*reader.styles, *reader.objects}


def test_the_nudity_suite_asks_for_it_in_half_its_sentences() -> None:
    cells = load_suite("nudity").shots(["nudity"])
    assert len({cell.shot for cell in cells}) == 50
    assert {cell.object for cell in cells if "nude" in cell.shot.prompt or "naked" in cell.shot.prompt} == {"nudity"}
    assert sum(cell.object == "nudity" for cell in cells) == 25


def test_label_order_is_the_probes() -> None:
    one = load_suite("pocket-canvas")
    assert (one.styles[0], one.styles[10], one.styles[14]) == ("Bricks", "Seed_Images", "Winter")
    assert (one.objects[0], one.objects[19]) == ("Architectures", "Waterfalls")


def test_the_whole_grid_and_the_target_rows() -> None:
    one = load_suite("pocket-canvas")
    assert len(one.shots()) == 15 * 20
    assert len(one.shots(["Van_Gogh"])) == 15 * 20 + 20 * 4
    assert len(one.shots(["Cats"])) == 15 * 20 + 15 * 4
    both = one.shots(["Van_Gogh", "Cats"])
    assert len(both) == 15 * 20 + (20 + 15 - 1) * 4
    assert len({cell.shot for cell in both}) == len(both)


@pytest.mark.parametrize("target", [*words.STYLES, *words.OBJECTS])
def test_the_small_suite_always_shows_the_target_and_its_neighbours(target: str) -> None:
    small = load_suite("pocket-canvas-small")
    cells = small.shots([target])
    styles, objects = {cell.style for cell in cells}, {cell.object for cell in cells}
    assert (len(styles), len(objects)) == (6, 10)
    assert target in styles | objects
    assert set(small.neighbours[target]) <= styles | objects
    assert len([cell for cell in cells if target in (cell.style, cell.object)]) == (10 if target in styles else 6) * 5
    assert [cell.style for cell in cells] == sorted(cell.style for cell in cells)


def test_a_small_grid_keeps_something_however_many_are_erased() -> None:
    cells = load_suite("pocket-canvas-small").shots(["Van Gogh", "Sketch", "Rust", "Winter"])
    kept = {cell.style for cell in cells} - {"Van_Gogh", "Sketch", "Rust", "Winter"}
    assert len(kept) == 5
    assert "Seed_Images" not in kept


def test_a_small_grid_spends_its_images_on_styles_before_photos() -> None:
    small = TINY.model_copy(update={"grid_styles": 2})
    assert {cell.style for cell in small.shots(["Ink Art"])} == {"Ink_Art", "Van_Gogh"}


@pytest.mark.parametrize("name", ["Van_Gogh", "van gogh", "VAN-GOGH", " Van  Gogh ", "vincent van gogh"])
def test_names_are_found_however_they_are_spelled(name: str) -> None:
    assert load_suite("pocket-canvas").target(name) == Target("style", "Van_Gogh")


def test_synonyms_and_the_photo_word_mean_their_label() -> None:
    one = load_suite("pocket-canvas")
    assert one.target("kitten") == Target("object", "Cats")
    assert one.target("Photo") == Target("style", "Seed_Images")
    assert one.targets(["Cats", "cats", "Dogs"]) == (Target("object", "Cats"), Target("object", "Dogs"))


def test_unknown_names_get_the_nearest_guess() -> None:
    with pytest.raises(BadInput, match="Van_Gogh"):
        load_suite("pocket-canvas").target("Van Goth")
    with pytest.raises(BadInput, match="Did you mean 'pocket-canvas-small'"):
        load_suite("pocket-canvas-smal")


def test_a_cells_noise_is_its_own_or_its_seeds() -> None:
    by_cell = TINY.shots()
    assert len({cell.shot.seed for cell in by_cell}) == len(by_cell)
    assert by_cell == TINY.shots()
    assert all(0 <= cell.shot.seed < 2**31 for cell in by_cell)
    by_seed = TINY.model_copy(update={"noise": "seed"}).shots()
    assert {cell.shot.seed for cell in by_seed} == {188}


def test_a_grammatical_article() -> None:
    careful = TINY.model_copy(update={"article": "grammar", "objects": ("Architectures", "Cats")})
    assert careful.sentence("Van_Gogh", "Architectures") == "An Architectures image in Van Gogh style."
    assert TINY.sentence("Van_Gogh", "Architectures") == "A Architectures image in Van Gogh style."


def test_a_users_own_file(tmp_path: Path) -> None:
    mine = load_suite(write_suite(tmp_path / "mine.toml", guidance=5.0))
    assert (mine.name, mine.guidance, mine.steps, len(mine.shots(["Cats"]))) == ("mine", 5.0, None, 6 + 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"styles": ["Van_Gogh", "Ink_Art", "Seed_Images"]}, "alphabetical"),
        ({"grid_seeds": [1]}, "grid_seeds"),
        ({"first_styles": ["Rust"]}, "Rust"),
        ({"objects": ["Cats", "Ink_Art"]}, "style and an object"),
        ({"guidence": 4}, "guidance"),
        ({"version": 0}, "version"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        load_suite(write_suite(tmp_path / "wrong.toml", **changes))


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no suite file"):
        load_suite(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(BadInput, match="cannot be read as TOML"):
        load_suite(tmp_path / "broken.toml")
