"""The table of mutants stands on the lines of today, and the runner tells a caught mutant from one that survives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants.runner import judged
from tests.mutants.table import ROOT, Mutant, mutants

HALF = Mutant("half of it", "product.py", "return 2 * x", "return x / 2", ("test_product.py",))


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: f"{mutant.file}: {mutant.what}")
def test_every_mutant_changes_one_line_and_names_tests_that_are_there(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.changed(source) != source
    assert mutant.tests
    for test in mutant.tests:
        file, *names = test.split("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert all(f"def {name}(" in text for name in names)


def test_no_two_mutants_make_the_same_change() -> None:
    changes = [(mutant.file, mutant.before, mutant.after) for mutant in mutants()]
    assert len(set(changes)) == len(changes)


def test_a_line_that_is_gone_or_stands_twice_is_refused() -> None:
    assert HALF.changed("def double(x):\n    return 2 * x\n") == "def double(x):\n    return x / 2\n"
    for source, count in (("return 3 * x\n", 0), ("return 2 * x\n  return 2 * x\n", 2)):
        with pytest.raises(ValueError, match=f"{count} times; it has to be once"):
            HALF.changed(source)


def test_a_mutant_is_caught_by_a_failing_test_alone(tmp_path: Path) -> None:
    product = "def double(x):\n    return 2 * x\n"
    (tmp_path / "product.py").write_text(product, encoding="utf-8")
    (tmp_path / "test_product.py").write_text(
        "import product\n\ndef test_double():\n    assert product.double(2) > 3\n", encoding="utf-8"
    )
    verdict = judged(HALF, tmp_path)
    assert (verdict.caught, verdict.by) == (True, "test_product.py::test_double")
    assert (tmp_path / "product.py").read_text(encoding="utf-8") == product
    unseen = judged(replace(HALF, after="return 3 * x"), tmp_path)
    assert (unseen.caught, unseen.by) == (False, "no test failed")
    assert not judged(replace(HALF, after="return ("), tmp_path).caught  # a tree that does not even import
