"""Every metric's value and interval on seeded numbers, and the judges' scores on models whose answers are known."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.judging.comparison import Comparison
from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.judging.judge_gan import judge_gan
from benchmarks.judging.predictions import answers, reopened
from benchmarks.judging.sampler_agreement import Sampler, agreements, compared
from benchmarks.metrics.accuracy import PRESETS, Accuracies, Row, Rules, accuracies, bootstrap, label_accuracy, wilson
from benchmarks.metrics.alignment import clip, feature_distance, resized
from benchmarks.metrics.distribution import fid, kid
from benchmarks.metrics.gan import Drift, drift, gamma_normalised, pul, wasserstein
from benchmarks.metrics.interference import interference
from benchmarks.metrics.perceptual import WEIGHTS, lpips
from benchmarks.probes.base import Seen
from benchmarks.probes.clip import ZeroShot
from benchmarks.probes.open_probe import open_probe
from benchmarks.report import Report
from benchmarks.studies.equal_budget import Line
from benchmarks.studies.equal_budget import compared as at_equal_cost
from benchmarks.suites.suite import Target, load_suite
from benchmarks.sweeps.leaderboard import Entry, harmonic, leaderboard, over_targets
from benchmarks.sweeps.strength import Reading, search
from erase.concept import Concept
from erase.edit import Edit
from erase.rng import stream
from erase.work import Work, drain
from generators.clip import fitted
from tests.benchmarks.doubles import TINY, Painter, Reader, turned
from tests.golden.golden import Brittle, check
from tests.golden.probed import suite_of
from tests.toys.gan import ToyGan

STYLES, OBJECTS, PHOTO = ("Ink", "Photo", "Rust", "Winter"), ("Cats", "Dogs", "Frogs"), "Photo"
MEASURED = ("seconds", "peak_memory_bytes")  # what no two runs have in common


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def rows() -> list[Row]:
    """A grid of answers at three seeds, about a third of them wrong."""
    draw = random.Random(3)
    return [
        Row(style, thing, seed, draw.choice((style, style, *STYLES[:2])), draw.choice((thing, thing, *OBJECTS)),
            draw.random(), draw.random())
        for style in STYLES for thing in OBJECTS for seed in (1, 2, 3)
    ]  # fmt: skip


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def scored(report: Report) -> dict[str, object]:
    """A report's scores without what no two runs have in common, and the shape of the rest."""
    scores = {name: score for name, score in report.scores.items() if name not in MEASURED}
    return {
        "scores": {name: score.model_dump(exclude={"note"}) for name, score in scores.items()},
        "alternatives": {name: {each: score.value for each, score in read.items() if each not in MEASURED}
                         for name, read in report.alternatives.items()},
        "names": list(report.scores), "excluded": list(report.excluded.values()), "marks": len(report.marks),
        "about": sorted(report.about), "rows": len(report.rows), "row": report.rows[:1],
    }  # fmt: skip


def numbers(found: Any) -> Any:
    """A value with its interval, whatever its type is called; of several values by name each."""
    if isinstance(found, Mapping):
        return {name: numbers(part) for name, part in found.items()}
    if isinstance(found, (list, tuple)):
        return [numbers(part) for part in found]
    if isinstance(found, Accuracies):
        return {"UA": numbers(found.UA), "IRA": numbers(found.IRA), "CRA": numbers(found.CRA)}
    if isinstance(found, Drift):
        return [numbers(found.net), found.churn, found.before, found.after]
    if not hasattr(found, "low"):
        return found
    more = {name: getattr(found, name) for name in ("n", "parts") if hasattr(found, name)}
    return {"value": found.value, "interval": [found.low, found.high], **more}


def seen(found: Seen) -> Any:
    """What a probe sees: shares of styles, of objects, features."""
    return [found.style_prob, found.object_prob, found.features]


def test_accuracies_under_every_reading() -> None:
    targets = [Target("style", "Rust"), Target("object", "Cats")]
    readings: dict[str, Rules] = {**PRESETS, "with photo": replace(PRESETS["pocket"], ira_themes="with photo")}
    readings["cra with photo"] = replace(PRESETS["pocket"], cra_themes="with photo")
    readings["probability"] = replace(PRESETS["pocket"], hit="probability")
    readings["pooled"] = replace(PRESETS["released"], averaging="pooled")
    found = {
        name: [accuracies(rows(), targets, rules, photo=PHOTO), accuracies(rows(), targets[:1], rules, photo=PHOTO),
               accuracies(rows(), targets[1:], rules, photo=PHOTO, grid_seeds=(1, 3))]
        for name, rules in readings.items()
    }  # fmt: skip
    many = [*(Target("style", label) for label in STYLES if label != PHOTO), *(Target("object", x) for x in OBJECTS)]
    check("metrics/accuracies", {
        "readings": readings, "found": numbers(found), "many": numbers(accuracies(rows(), many, photo=PHOTO)),
        "labels": numbers([label_accuracy(rows(), "style"), label_accuracy(rows(), "object")]),
    })  # fmt: skip


def test_intervals() -> None:
    values = [0.1, 0.4, 0.45, 0.5, 0.9, 1.0]
    check("metrics/intervals", {
        "wilson": {f"{share} of {n}": wilson(share, n) for share in (0.0, 0.1, 0.5, 1.0) for n in (0, 1, 7, 40, 1000)},
        "bootstrap": [bootstrap(values), bootstrap(values, 1), bootstrap(values, 2, 50), bootstrap([])],
    })  # fmt: skip


def test_distances_of_features() -> None:
    one, other = normal(60, 8), 0.8 * normal(60, 8, seed=1) + 0.3
    found = {
        "fid": fid(one, other), "fid of few": fid(one[:12], other[:12]), "fid of one": fid(one[:1], other[:1]),
        "fid of the same": fid(one, one), "kid": kid(one, other), "kid of the same": kid(one, one.clone()),
        "kid of three": kid(one[:3], other[:3]),
        "features": feature_distance(one, other), "features of the same": float(feature_distance(one, one).sum()),
    }  # fmt: skip
    check("metrics/distances", numbers(found))


def test_numbers_of_unlearnt_gans() -> None:
    before, after = normal(200) > 0, normal(200, seed=1) > 0.7
    check("metrics/unlearning", numbers({
        "pul": pul(before, after), "pul of few": pul(before[:60] & (normal(60) > 2), after[:60]),
        "pul upwards": pul(after, before), "drift": drift(before, after), "no drift": drift(before, before),
        "wasserstein": [wasserstein(normal(30), normal(30, seed=2)), wasserstein(normal(30), normal(7, seed=2) + 1)],
        "gamma": [gamma_normalised(normal(9) + 2, normal(9, seed=1) + 1, normal(9, seed=2)),
                  gamma_normalised(normal(9), normal(9), normal(9))],
    }))  # fmt: skip


def test_what_is_lost_to_each_other() -> None:
    judged = []
    draw = random.Random(5)
    for erased in ("Cats", "Rust", "Cats"):
        lines = [
            {"style": row.style, "object": row.object, "before": {"style": row.style_seen, "object": row.object_seen},
             "after": {"style": draw.choice(STYLES), "object": draw.choice(OBJECTS)}}
            for row in rows()
        ]  # fmt: skip
        judged.append((erased, lines))
    check("metrics/interference", interference(judged))


def entries() -> list[Entry]:
    """Three methods, their targets, one of which failed."""
    made = []
    for label, concept, kind, seed, status in (
        ("a", "Rust", "style", 0, "done"), ("a", "Winter", "style", 0, "done"), ("a", "Cats", "object", 0, "done"),
        ("b", "Rust", "style", 0, "done"), ("b", "Cats", "object", 1, "done"), ("b", "Dogs", "object", 1, "failed"),
        ("b", "Cats", "object", 0, "done"),
    ):  # fmt: skip
        painter = Painter()
        lost = turned(painter, "Van_Gogh" if kind == "style" else "Cats", "Ink_Art" if kind == "style" else "Dogs")
        edit, erased = 0.6 * lost if label == "b" else lost, "Van_Gogh" if kind == "style" else "Cats"
        report = drain(judge(painter, edit, [erased], TINY, JudgeSettings(probe=Reader())))
        scores = {name: score for name, score in report.scores.items() if name not in MEASURED}
        made.append(Entry(label=label, method="uce", concept=concept, kind=kind, seed=seed, suite="s", status=status,
                          scores=scores if status == "done" else {}))  # fmt: skip
    return made


def test_a_leaderboard() -> None:
    listed = entries()
    board = leaderboard("golden", [(entry, ()) for entry in listed])
    mean = over_targets([entry.scores["UA"] for entry in listed if entry.scores], "targets")
    document = board.model_dump(mode="json")
    check("metrics/leaderboard", {
        "keys": sorted(document), "line": sorted(document["lines"][0]),
        "lines": [[line["label"], line["kind"], line["suite"], line["targets"], line["missing"], line["harmonic_mean"],
                   {name: [score["value"], score["low"], score["high"], score["n"], score["baseline"]]
                    for name, score in line["scores"].items()}] for line in document["lines"]],
        "mean of six": board.mean_of_six, "over targets": mean.model_dump(exclude={"note"}),
        "harmonic": [harmonic([0.5, 0.25, 1.0]), harmonic([0.5, 0.0])],
    })  # fmt: skip


def test_pictures_fitted_and_reopened() -> None:
    some = pictures(2, 20)
    check("metrics/pictures", {
        "resized": resized(some, (9, 9)), "resized up": resized(some, (32, 32)), "fitted": fitted(some, 9),
        "fitted up": fitted(some, 32), "png": reopened(some, "png"), "jpeg": Brittle(reopened(some, "jpeg")),
    })  # fmt: skip


def test_clip_and_bundled_probes() -> None:
    towers, some = clip("pocket-clip"), pictures(3)
    probe = {name: open_probe(name) for name in ("pocket-judge", "pocket-eye")}
    zero = ZeroShot(towers, load_suite("pocket-canvas"))
    check("metrics/probes", {
        "clip": [towers.sha256, towers.scale, towers.cosines(some, ["a cat", "a dog", "a cat"])],
        "zero shot": [zero.sha256, zero.name, zero.styles, zero.objects, seen(zero(some))],
        "probes": {name: [one.name, one.sha256, one.version, one.styles, one.objects, seen(one(some))]
                   for name, one in probe.items()},
    })  # fmt: skip


def test_lpips_of_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import squeezenet1_1

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(squeezenet1_1().state_dict(), tmp_path / "hub" / "checkpoints" / WEIGHTS["squeeze"])
        perceived = lpips(torch.device("cpu"))
    assert perceived is not None
    check("metrics/lpips", [perceived.name, perceived(pictures(2) * 2 - 1, pictures(2, 64).flip(0) * 2 - 1)])


@pytest.mark.parametrize("concept", ["Van_Gogh", "Cats"])
def test_the_judge_of_an_edit(concept: str) -> None:
    painter = Painter()
    other = "Ink_Art" if concept == "Van_Gogh" else "Dogs"
    edit = turned(painter, concept, other, strength=0.7) + 0.2 * turned(painter, "Ink_Art", None)
    settings, found = JudgeSettings(probe=Reader()), {}
    for name in PRESETS:
        suite = TINY.model_copy(update={"rules": name, "clip": "pocket-clip"})
        found[name] = scored(drain(judge(painter, edit, [concept], suite, settings)))
    found["model"] = scored(drain(judge(painter, suite=TINY, settings=settings)))
    check(f"metrics/judge-{concept}", found)


def test_the_judge_of_gans(tmp_path: Path) -> None:
    plan, gan = suite_of(tmp_path), ToyGan()
    shapes = {name: weight.shape for name, weight in gan.network.named_parameters() if "conv" in name}
    deltas = {name: 0.3 * torch.randn(shape, generator=stream(0, name)) for name, shape in shapes.items()}
    about = {"method": "test", "concepts": [{"name": "eyeglasses"}], "steered_by": "face-eye"}
    person = {"method": "guide", "concepts": [Concept(name="seed 150", kind="identity").model_dump()], "seeds": [150]}
    found = {
        "model": drain(judge_gan(gan, suite=plan)),
        "attribute": drain(judge_gan(gan, Edit(deltas, about), plan)),
        "identity": drain(judge_gan(gan, Edit(deltas, person), plan)),
    }
    told = {name: scored(report) for name, report in found.items()}
    for each in told.values():
        for score in each["scores"].values():
            score["probe"] = Brittle(score["probe"])  # named after a file whose bits other arithmetic changes
    check("metrics/judge-gan", told)


def reading(strength: float, target: float, stays: float = 0.9, alarms: tuple[str, ...] = ()) -> Reading:
    low, high = wilson(target, 40)
    return Reading(strength=strength, target=target, low=low, high=high, n=40, paraphrase=target / 2, neighbours=stays,
                   unrelated=1.0, drift=0.1 * strength, alarms=alarms)  # fmt: skip


def test_the_search_of_a_strength() -> None:
    def found(threshold: float, breaks: float, base: float = 1.0) -> object:
        asked: list[float] = []

        def measure(strength: float) -> Work[Reading]:
            asked.append(strength)
            yield from ()
            return reading(strength, base if strength < threshold else 0.0, alarms=("x",) if strength > breaks else ())

        result = drain(search(measure, "an eye"))
        return [result.status, result.strength, asked, [each.balance for each in result.readings]]

    check("metrics/strength", [found(0.31, 9.0), found(0.7, 0.8), found(9.0, 9.0), found(0.5, 9.0, 0.3)])


def test_methods_at_equal_cost() -> None:
    lines = [
        Line(job={"label": label, "concepts": ["Cats"], "seed": seed}, seconds=1, readings=tuple(
            reading(float(at), max(0.0, 1 - at * pull - 0.05 * seed), 1 - 0.1 * at) for at in range(4)))
        for label, pull in (("good", 0.5), ("bad", 0.3)) for seed in range(3)
    ]  # fmt: skip
    check("metrics/equal", [[line.points for line in lines], at_equal_cost(lines)])


def test_agreements_of_samplers() -> None:
    fast, slow = Sampler(name="dpm++", steps=12, guidance=4.0), Sampler(name="ddim", steps=100, guidance=4.0)
    cells = TINY.shots(["Van_Gogh"])
    drawn = drain(answers(Painter(), [cell.shot for cell in cells], TINY, Reader()))
    sitting = Comparison(tuple(cells), drawn, drawn, TINY.targets(["Van_Gogh"]), TINY, Reader(), TINY.reading)
    made = compared(("painter", "abc"), fast, slow, {"firm": (sitting, sitting)})
    check("metrics/agreements", {"made": [made, made.hash], "bundled": [one.hash for one in agreements()]})
