"""UA, IRA, CRA from hand-made tables: every option changes exactly the number it should."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from benchmarks.metrics.accuracy import PRESETS, Row, Rules, accuracies, bootstrap, label_accuracy, wilson
from benchmarks.suites.suite import Target

STRICT, RELEASED, POCKET = PRESETS["strict"], PRESETS["released"], PRESETS["pocket"]
GOGH, INK = Target("style", "Van_Gogh"), Target("style", "Ink_Art")
CATS, DOGS = Target("object", "Cats"), Target("object", "Dogs")


def row(style: str, thing: str, sees: tuple[str, str], share: tuple[float, float] = (0.5, 0.5), seed: int = 188) -> Row:
    return Row(style, thing, seed, *sees, *share)


# 3 themes × 2 objects after erasing Van_Gogh: the target reads as Ink_Art, and some of everything is damaged.
TABLE = [
    row("Ink_Art", "Cats", ("Ink_Art", "Cats"), (0.9, 0.8)),
    row("Ink_Art", "Dogs", ("Van_Gogh", "Cats"), (0.2, 0.3)),
    row("Seed_Images", "Cats", ("Seed_Images", "Dogs"), (0.7, 0.1)),
    row("Seed_Images", "Dogs", ("Seed_Images", "Dogs"), (0.6, 0.9)),
    row("Van_Gogh", "Cats", ("Ink_Art", "Cats"), (0.1, 0.7)),
    row("Van_Gogh", "Dogs", ("Van_Gogh", "Cats"), (0.6, 0.4)),
]


def three(rows: list[Row], targets: list[Target], rules: Rules) -> tuple[float, float, float]:
    found = accuracies(rows, targets, rules, photo="Seed_Images")
    return found.UA.value, found.IRA.value, found.CRA.value


def test_a_style_target_by_hand() -> None:
    # UA: 1 of 2 forgotten. IRA: Ink_Art 1/2, photo 2/2. CRA: per object over the rows each preset counts.
    assert three(TABLE, [GOGH], STRICT) == (0.5, 0.5, (1 + 0) / 2)
    assert three(TABLE, [GOGH], POCKET) == (0.5, 0.5, (1 / 2 + 1 / 2) / 2)
    assert three(TABLE, [GOGH], RELEASED) == pytest.approx((0.5, 0.5, (2 / 3 + 1 / 3) / 2))


def test_an_object_target_by_hand() -> None:
    # acc_O[Cats]: 2 of 3 with the photo row, 2 of 2 without. acc_S over rows with or without Cats in them.
    assert three(TABLE, [CATS], RELEASED) == pytest.approx((1 / 3, 1 / 3, (1 / 2 + 1 / 2) / 2))
    assert three(TABLE, [CATS], STRICT) == (0.0, 0.0, (0 + 1) / 2)
    assert three(TABLE, [CATS], POCKET) == pytest.approx((1 / 3, 1 / 3, (0 + 1) / 2))


@pytest.mark.parametrize(
    ("target", "change", "moved"),
    [
        (GOGH, {"ira_themes": "with photo"}, {"IRA": (0.5 + 1.0) / 2}),
        (GOGH, {"cra_themes": "with photo"}, {}),
        (GOGH, {"photo_rows_in_object_acc": True}, {"CRA": 0.5 + 0.0}),
        (GOGH, {"target_rows_in_cra": True}, {"CRA": (2 / 2 + 0 / 2) / 2}),
        (GOGH, {"hit": "probability"}, {"UA": 1 - 0.35, "IRA": 0.55, "CRA": (0.8 + 0.3) / 2}),
        (DOGS, {"ira_themes": "with photo"}, {}),
        (DOGS, {"cra_themes": "with photo"}, {"CRA": (1 + 1 + 0) / 3}),
        (DOGS, {"photo_rows_in_object_acc": True}, {"UA": 2 / 3, "IRA": 2 / 3}),
        (DOGS, {"target_rows_in_cra": True}, {"CRA": (1 / 2 + 1 / 2) / 2}),
    ],
)
def test_an_option_changes_what_it_should_and_nothing_else(
    target: Target, change: dict[str, object], moved: dict[str, float]
) -> None:
    names = ("UA", "IRA", "CRA")
    plain = dict(zip(names, three(TABLE, [target], STRICT), strict=True))
    changed = dict(zip(names, three(TABLE, [target], replace(STRICT, **change)), strict=True))
    assert changed == pytest.approx(plain | moved)


def test_pooled_averaging_differs_from_means_once_images_are_missing() -> None:
    whole = [
        row(style, thing, (style if style == "Ink_Art" else "Ink_Art", thing), seed=seed)
        for style in ("Ink_Art", "Van_Gogh", "Watercolor")
        for thing in ("Cats", "Dogs")
        for seed in (188, 288)
    ]
    pooled = replace(STRICT, averaging="pooled")
    assert three(whole, [GOGH], pooled) == three(whole, [GOGH], STRICT)
    holed = whole[2:]  # two of Ink_Art's four images are gone: styles kept are Ink_Art 2/2 and Watercolor 0/4
    assert accuracies(holed, [GOGH], STRICT).IRA.value == pytest.approx((1 + 0) / 2)
    assert accuracies(holed, [GOGH], pooled).IRA.value == pytest.approx(2 / 6)


def test_missing_images_change_n_and_leave_untouched_cells_alone() -> None:
    full, holed = accuracies(TABLE, [GOGH], RELEASED), accuracies(TABLE[1:], [GOGH], RELEASED)
    assert (full.CRA.n, holed.CRA.n) == (6, 5)
    assert holed.CRA.parts["Dogs"] == full.CRA.parts["Dogs"]
    assert holed.CRA.parts["Cats"] == 1 / 2  # by hand: photo row wrong, Van_Gogh row right
    assert holed.UA == full.UA


def test_extra_seeds_of_the_target_count_for_UA_alone() -> None:
    extra = [row("Van_Gogh", thing, ("Van_Gogh", "nothing"), seed=288) for thing in ("Cats", "Dogs")]
    found = accuracies([*TABLE, *extra], [GOGH], RELEASED, photo="Seed_Images", grid_seeds=(188,))
    plain = accuracies(TABLE, [GOGH], RELEASED, photo="Seed_Images", grid_seeds=(188,))
    assert (found.UA.value, found.UA.n) == (1 / 4, 4)
    assert (found.IRA, found.CRA) == (plain.IRA, plain.CRA)


def test_several_targets_are_averaged_and_all_left_out_of_what_is_kept() -> None:
    found = accuracies(TABLE, [GOGH, INK], POCKET, photo="Seed_Images")
    assert found.UA.parts == {"Van_Gogh": 0.5, "Ink_Art": 0.5}
    assert math.isnan(found.IRA.value)  # no style is left but the photo
    assert found.IRA.n == 0
    assert found.CRA.parts == {"Cats": 0.0, "Dogs": 1.0}  # the photo rows alone involve no target
    mixed = accuracies(TABLE, [GOGH, CATS], POCKET, photo="Seed_Images")
    assert mixed.UA.value == pytest.approx((1 / 2 + 1 / 3) / 2)
    # Left are Ink_Art/Dogs (style wrong, object wrong) and Seed_Images/Dogs (both right).
    assert mixed.IRA.value == pytest.approx((0 + 1 / 2) / 2)
    assert mixed.IRA.parts == {"Ink_Art": 0.0, "Dogs": 0.5}


def grid(see: object) -> list[Row]:
    styles, objects = [f"S{i}" for i in range(6)], [f"O{i}" for i in range(5)]
    return [Row(s, o, seed, *see(s, o, seed)) for s in styles for o in objects for seed in range(5)]  # type: ignore[operator]


def test_the_corners() -> None:
    target = [Target("style", "S0")]
    identity = grid(lambda s, o, _: (s, o, 1.0, 1.0))
    assert three(identity, target, STRICT) == (0.0, 1.0, 1.0)
    perfect = grid(lambda s, o, _: ("S1" if s == "S0" else s, o, 1.0, 1.0))
    assert three(perfect, target, STRICT) == (1.0, 1.0, 1.0)
    draw = random.Random(0)
    noise = grid(lambda *_: (f"S{draw.randrange(6)}", f"O{draw.randrange(5)}", 1 / 6, 1 / 5))
    ua, ira, cra = three(noise, target, STRICT)
    assert (ua, ira, cra) == pytest.approx((5 / 6, 1 / 6, 1 / 5), abs=0.2)


def test_the_order_of_rows_changes_no_bit() -> None:
    draw = random.Random(1)
    rows = grid(lambda s, o, _: (draw.choice([s, "S1"]), draw.choice([o, "O2"]), draw.random(), draw.random()))
    shuffled = rows.copy()
    draw.shuffle(shuffled)
    assert shuffled != rows
    for rules in (STRICT, replace(STRICT, hit="probability"), replace(RELEASED, hit="probability", averaging="pooled")):
        targets = [Target("style", f"S{i}") for i in range(5)] + [Target("object", "O1")]
        assert accuracies(rows, targets, rules) == accuracies(shuffled, targets, rules)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(4, 50, 3.2, 18.8), (1, 50, 0.4, 10.5), (0, 50, 0.0, 7.1), (30, 142, 15.2, 28.6), (45, 50, 78.6, 95.7)],
)
def test_wilson_gives_the_quoted_values(hits: int, n: int, low: float, high: float) -> None:
    found = wilson(hits / n, n)
    assert [round(100 * edge, 1) for edge in found] == [low, high]


@pytest.mark.parametrize("n", [50, 142])
@pytest.mark.parametrize("p", [0.02, 0.08, 0.5])
def test_wilson_covers_as_promised(n: int, p: float) -> None:
    def chance(hits: int) -> float:
        return math.comb(n, hits) * p**hits * (1 - p) ** (n - hits)

    held = math.fsum(chance(hits) for hits in range(n + 1) if wilson(hits / n, n)[0] <= p <= wilson(hits / n, n)[1])
    assert 0.92 <= held <= 0.98


def test_the_bootstrap_repeats_and_widens_with_spread() -> None:
    tight, wide = [0.9, 0.91, 0.89, 0.9, 0.9, 0.9], [0.2, 1.0, 0.9, 1.0, 0.4, 1.0]
    assert bootstrap(wide) == bootstrap(list(reversed(wide)))
    # Of 20 targets, half forgotten: the quantiles of Binomial(20, 1/2) are 6 and 14, give or take one.
    assert bootstrap([0.0, 1.0] * 10) == pytest.approx((6 / 20, 14 / 20), abs=1.01 / 20)
    low, high = bootstrap(wide)
    assert low < sum(wide) / 6 < high
    assert high - low > 5 * (bootstrap(tight)[1] - bootstrap(tight)[0])


def test_the_bootstrap_s_interval_is_one_of_95_percent() -> None:
    """Of many targets the mean is nearly normal: 1.96 standard errors to either side, where 90 % would be 1.645."""
    values = [((7 * place) % 40) / 40 for place in range(40)]
    mean = sum(values) / 40
    error = (sum((value - mean) ** 2 for value in values) / 40 / 40) ** 0.5
    low, high = bootstrap(values)
    assert (mean - low) / error == pytest.approx(1.96, abs=0.1)
    assert (high - mean) / error == pytest.approx(1.96, abs=0.1)


def test_many_targets_carry_a_bootstrap_and_one_a_wilson_interval() -> None:
    rows = grid(lambda s, o, _: (s if s in ("S1", "S2") else "S5", o, 1.0, 1.0))
    many = accuracies(rows, [Target("style", f"S{i}") for i in range(5)], STRICT).UA
    assert (many.interval, many.value, many.n) == ("bootstrap-over-targets", 0.6, 125)
    assert (many.low, many.high) == bootstrap(list(many.parts.values()))
    one = accuracies(rows, [Target("style", "S0")], STRICT).UA
    assert (one.interval, one.low, one.high) == ("wilson", *wilson(1.0, 25))


def test_the_accuracy_of_a_model_is_over_all_its_images() -> None:
    style, thing = label_accuracy(TABLE, "style"), label_accuracy(TABLE, "object")
    assert (style.value, style.n) == (4 / 6, 6)
    assert style.parts == {"Ink_Art": 0.5, "Seed_Images": 1.0, "Van_Gogh": 0.5}
    assert (thing.value, thing.parts["Cats"]) == (3 / 6, 2 / 3)
