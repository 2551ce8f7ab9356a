"""Names, knobs and mistakes: what the command line and the forms read from the methods."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from erase.concept import Concept
from erase.errors import BadInput
from erase.methods import registry
from erase.methods.registry import build, knobs, method, method_names
from erase.request import Request, run_method
from erase.work import drain
from tests.toys.compare import same_bits, weights
from tests.toys.denoiser import Toy

EXAMPLE = Path(__file__).with_name("forget.txt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of further methods, empty as yet."""
    (tmp_path / "more").mkdir()
    monkeypatch.setenv(registry.FOLDERS, f"{tmp_path / 'more'}{os.pathsep}")
    return tmp_path / "more"


def test_the_example_is_picked_up_and_is_short(folder: Path, toy: Toy, cats: Concept) -> None:
    assert "forget" not in method_names()
    assert len(EXAMPLE.read_text().splitlines()) <= 42
    (folder / "forget.py").write_text(EXAMPLE.read_text())
    (folder / "_helper.py").write_text("raise RuntimeError('not a method')")
    assert "forget" in method_names() and "forget" in registry.methods()
    before = weights(toy.network)
    edit = drain(run_method(build("Forget", "half", {"amount": "0.75"}), Request(toy, [cats])))
    assert edit.about["method"] == "forget" and edit.about["knobs"] == {"amount": 0.75}
    code = toy.contrast(cats).present.detach()
    with edit.applied(toy.network, 1 / 0.75):
        assert all(bool((reader(code).abs() < 1e-5).all()) for reader in toy.readers().values())
    assert same_bits(before, weights(toy.network))


def test_underscores_are_dashes_and_names_are_forgiving(folder: Path) -> None:
    (folder / "my_own_way.py").write_text(EXAMPLE.read_text())
    assert "my-own-way" in method_names()
    assert method("My Own_Way").__name__ == "Forget"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("uce.py", EXAMPLE.read_text(), "Two files define the method 'uce'"),
        ("blank.py", "x = 1", "t defines 0"),
        ("broken.py", "import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("melting.py", EXAMPLE.read_text().replace("frozen=True, ", ""), "t defines 0"),
    ],
)
def test_a_file_that_is_no_method_is_named(folder: Path, name: str, text: str, sentence: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(BadInput, match=sentence):
        registry.methods()


def test_a_folder_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.FOLDERS, "/no/such/folder")
    with pytest.raises(BadInput, match="/no/such/folder, which is not a folder"):
        method_names()


@pytest.mark.parametrize("name", method_names())
def test_every_knob_says_what_it_does_within_bounds(name: str) -> None:
    kind = method(name)
    assert kind.paper and kind.needs
    for knob in knobs(kind):
        assert len(knob.help) > 10, knob.name
        low, high = knob.bounds
        if knob.type in ("int", "float"):
            assert low is not None and high is not None and low <= knob.default <= high, knob.name
        assert (knob.type == "choice") == bool(knob.choices)
    for preset in kind.presets:
        build(name, preset)


def test_knobs_are_read_from_the_fields() -> None:
    listed = {knob.name: knob for knob in knobs(method("esd"))}
    assert listed["variant"].choices == ("x", "u", "x-strict", "all")
    assert (listed["batch"].type, listed["batch"].bounds) == ("int", (1, 256))
    assert listed["templates"].type == "bool or list"


def test_texts_become_values_and_presets_hold_what_differs() -> None:
    built = build(
        "ESD", "object", {"Iterations": "7", "LR": "2e-4", "templates": "a {} | one {} more", "keep-seeds": 3}
    )
    assert built.model_dump(include={"variant", "iterations", "lr", "templates", "keep_seeds", "steps"}) == {  # type: ignore[attr-defined]
        "variant": "u",
        "iterations": 7,
        "lr": 2e-4,
        "templates": ("a {}", "one {} more"),
        "keep_seeds": 3,
        "steps": 50,
    }
    assert build("esd", overrides={"variant": "X-Strict"}).variant == "x-strict"  # type: ignore[attr-defined]
    assert build("uce", overrides={"templates": "off", "rest": "no"}).rest is False  # type: ignore[attr-defined]
    assert build("uce", overrides={"templates": '["a, {}"]'}).templates == ("a, {}",)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "preset", "overrides", "sentence"),
    [
        ("edsd", None, {}, r"Unknown method 'edsd'. Did you mean 'esd'\?"),
        ("esd", "stile", {}, r"Unknown preset of esd 'stile'. Did you mean 'style'\?"),
        ("esd", None, {"iteration": 3}, r"Unknown knob of esd 'iteration'. Did you mean 'iterations'\?"),
        ("esd", None, {"variant": "y-strict"}, r"Unknown value of variant 'y-strict'. Did you mean 'x-strict'\?"),
        ("esd", None, {"lr": "3"}, r"lr = '3' is not valid .*less than or equal to 0.1.* between 0 and 0.1; .* 1e-05"),
        ("esd", None, {"batch": "many"}, r"batch = 'many' is not valid .*integer"),
        ("esd", None, {"variant": 3}, r"one of x, u, x-strict, all"),
        ("uce", None, {"rest": "maybe"}, r"rest = 'maybe' .* true or false"),
        ("uce", None, {"templates": "no gap"}, r"'no gap' needs exactly one \{\}"),
        ("uce", None, {"templates": "[1"}, r"is not a JSON list"),
    ],
)
def test_mistakes_are_answered_with_one_helpful_sentence(
    name: str, preset: str | None, overrides: dict[str, object], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        build(name, preset, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": " _ "}, "needs a name"),
        ({"name": "Cats", "anchor": "cats"}, "same words"),
        ({"name": "Cats", "prompts": ["a dog"], "anchor": "A dog"}, "'a dog' and its anchor are the same words"),
        ({"name": "Cats", "kind": "animal"}, "'style', 'object'"),
        ({"nam": "Cats"}, "Concept name: Field required"),
    ],
)
def test_concepts_that_mean_nothing(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        Concept(**fields)


def test_concepts_are_spelled_as_a_tokenizer_sees_them() -> None:
    gogh = Concept(name=" Van_Gogh", kind="style", prompts=("a  Van_Gogh", "a Van Gogh", ""))
    assert (gogh.name, gogh.prompts, gogh.instead) == ("Van Gogh", ("a Van Gogh",), "painting")
    assert Concept(name="Cats").phrases == ("Cats",) and Concept(name="Cats").instead == ""
    assert Concept(name="Cats", anchor="a dog").instead == "a dog"
    assert Concept(name="painting", kind="style").name == "painting"  # may be kept, though not erased
