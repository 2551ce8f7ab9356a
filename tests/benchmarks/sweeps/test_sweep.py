"""Sweep files: what they spread out to, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sweeps.sweep import Cell, cells, read_sweep
from erase.errors import BadInput

FILE = """
version = 1
suite = "pocket-canvas-small"
attacks = ["paraphrase", "unlearndiffatk:quick"]
[model]
path = "pocket-sd"
[[concept]]
name = "Cats"
anchor = "animal"
keep = ["Dogs", "Rabbits"]
[[concept]]
name = "Van_Gogh"
[[concept]]
name = "Trees"
[[method]]
name = "uce"
[[method]]
name = "uce"
label = "uce-strong"
push = 2
[[method]]
name = "esd"
steps = 200
"""


def spread(tmp_path: Path, text: str) -> list[Cell]:
    path = tmp_path / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return cells(read_sweep(path))


def test_one_model_three_concepts_three_methods_make_nine_cells(tmp_path: Path) -> None:
    found = spread(tmp_path, FILE)
    assert [cell.name for cell in found[:4]] == ["uce/Cats-0", "uce/Van_Gogh-0", "uce/Trees-0", "uce-strong/Cats-0"]
    assert len(found) == 9
    assert (found[0].kind, found[0].anchor, found[0].keep) == ("object", "animal", ("Dogs", "Rabbits"))
    assert (found[1].kind, found[1].keep) == ("style", ())
    assert found[3].variant.knobs == {"push": 2}
    assert found[8].variant.method == "esd"


def test_grids_seeds_and_whole_kinds(tmp_path: Path) -> None:
    text = """
    targets = "styles"
    keep = "others"
    seeds = [0, 7]
    [[method]]
    name = "uce"
    preset = "kind"
    grid = {push = [0.5, 2.0], hold = [1.0]}
    """
    found = spread(tmp_path, text)
    assert len(found) == 14 * 2 * 2
    assert {cell.variant.label for cell in found} == {"uce push=0.5 hold=1.0", "uce push=2.0 hold=1.0"}
    gogh = next(cell for cell in found if cell.target.label == "Van_Gogh")
    assert gogh.variant.preset_for("style") == "style"
    assert "Photo" not in gogh.keep and "Van Gogh" not in gogh.keep and {"Pop Art", "Cats"} <= set(gogh.keep)
    assert len({cell.name for cell in found}) == len(found)


ONE = '[[concept]]\nname = "Cats"\n[[method]]\nname = "uce"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "cannot be read as TOML"),
        ('suites = "x"\n' + ONE, "key of sweep file sweep.toml 'suites'. Did you mean 'suite'"),
        (ONE.replace('name = "Cats"', 'nam = "Cats"'), "'nam'. Did you mean 'name'"),
        (ONE + "pusch = 2\n", "knob of uce 'pusch'. Did you mean 'push'"),
        (ONE + "push = -1\n", "push"),
        (ONE + "grid = {pusch = [1]}\n", "Did you mean 'push'"),
        (ONE.replace("uce", "ucee"), "method 'ucee'. Did you mean 'uce'"),
        (ONE.replace("Cats", "Catz"), "'Catz'. Did you mean 'Cats'"),
        ('suite = "pocket-canvass"\n' + ONE, "Did you mean 'pocket-canvas'"),
        ('attacks = ["paraphrased"]\n' + ONE, "Did you mean 'paraphrase'"),
        ('attacks = ["unlearndiffatk:fast"]\n' + ONE, "fast"),
        ("version = 2\n" + ONE, "version"),
        ("seeds = []\n" + ONE, "seeds"),
        ('[[method]]\nname = "uce"\n', "names no concept"),
        ('[[concept]]\nname = "Cats"\n', "method"),
        (ONE + '[[method]]\nname = "uce"\n', "uce/Cats-0 twice"),
        ('suite = ["pocket-canvas", "pocket-canvas"]\n' + ONE, "different names"),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput) as told:
        spread(tmp_path, text)
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_sweep(tmp_path / "none.toml")
