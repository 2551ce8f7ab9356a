"""Every attack's tries, pictures and rates on tiny models: each of its knobs turned once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.attacks.engine import AttackTarget, chase
from benchmarks.attacks.gan.run import attack_gan
from benchmarks.attacks.gan.run import build as build_on_gans
from benchmarks.attacks.registry import ON_GANS, attack_class, attack_kind, attack_names, build, every_attack
from benchmarks.attacks.run import attack
from benchmarks.attacks.settings import AttackSettings, GanAttackSettings
from benchmarks.probes.base import Seen
from benchmarks.report import Report
from benchmarks.suites.prompts import Row, digest, file_rows, suite_rows
from benchmarks.suites.suite import Target, load_suite
from erase.edit import Edit
from erase.errors import BadInput
from erase.rng import stream
from erase.work import drain
from tests.benchmarks.doubles import TINY
from tests.golden.golden import Brittle, check
from tests.golden.golden import digest as bits
from tests.golden.probed import suite_of
from tests.golden.variations import turned
from tests.toys.denoiser import Toy
from tests.toys.gan import ToyGan

QUICK: dict[str, dict[str, Any]] = {
    "unlearndiffatk": {"budget": 5, "iterations": 2, "lr": 0.1},
    "hard-prompt": {"budget": 4, "check": 2, "tokens": 4, "lr": 3.0},
    "ring-a-bell": {"budget": 4, "population": 6, "checks": 2, "length": 6},
    "inversion": {"budget": 4, "images": 3, "pictures_per_step": 2, "checks": 2, "lr": 0.5},
    "random": {"budget": 3},
    "seed-search": {"budget": 3},
    "paraphrase": {"budget": 5, "near": 2},
    "inpaint": {"budget": 2, "steps": 4},
    "completion": {"budget": 2, "steps": 21},
}
ON_GANS_QUICK: dict[str, dict[str, Any]] = {
    "code-inversion": {"budget": 8},
    "latent-search": {"budget": 8},
    "prompt-boundary": {"budget": 3},
}
TIMES = ("seconds", "seconds_per_prompt")  # what no two runs have in common
CANVAS = TINY.model_copy(update={"clip": "pocket-clip"})


class Told:
    """A probe that sees Van Gogh in the pictures of some calls, counted from 0, and never after the last of them."""

    name, version, sha256 = "told", "1", "1" * 64
    held_out = {"style": 1.0}
    styles, objects = TINY.styles, TINY.objects

    def __init__(self, *calls: tuple[bool, ...]) -> None:
        self.calls = list(calls)

    def __call__(self, images: Tensor) -> Seen:
        shows = (*self.calls.pop(0),) if self.calls else (False,) * len(images)
        seen = torch.zeros(len(images), len(self.styles))
        for place in range(len(images)):
            seen[place, self.styles.index("Van_Gogh") if shows[place] else 0] = 1
        return Seen(seen, torch.ones(len(images), len(self.objects)), images.flatten(1)[:, :4])


def rows(count: int) -> list[Row]:
    things = ("cats", "dogs", "a green sea", "one tower by night")
    return [Row(str(n), f"{things[n]} in Van Gogh style", 100 + n) for n in range(count)]


def shaken(toy: Toy) -> Edit:
    """An edit that changes every cross-attention a little."""
    shapes = dict(toy.network.named_parameters())
    names = [f"{name}.weight" for name in toy.readers()]
    deltas = {name: 0.3 * torch.randn(shapes[name].shape, generator=stream(0, name)) for name in names}
    return Edit(deltas, {"method": "shaken", "concepts": [{"name": "Van Gogh"}]})


def tried(name: str, knobs: Mapping[str, Any], count: int = 1, seed: int = 0) -> Any:
    """What an attack came to in every row, none of which it breaks: text, tokens, vectors, picture, budget spent."""
    toy, some, found = Toy(), rows(count), {}
    aim = AttackTarget(toy, shaken(toy), 1.0, Target("style", "Van_Gogh"), CANVAS, Told(), seed)
    for row in some:
        aim.clean[row] = drain(toy.latents([row.shot]))[0]
    losses: list[float] = []

    def keep(each: Any, hit: bool) -> None:
        last = each.last
        found[each.row.case] = [
            each.tries, hit, None if last is None else
            {"text": Brittle(last.text), "tokens": Brittle(last.tokens), "spent": last.spent, "seed": last.seed,
             "vectors": list(last.vectors.values()), "image": Brittle(each.image)},
        ]  # fmt: skip

    try:
        drain(chase(build(name, None, knobs), aim, some, keep, 4), lambda step: losses.extend(step.loss.values()))
    except BadInput:
        return "refused"
    learnt = {key: value for key, value in sorted(aim.learnt.items()) if torch.is_tensor(value)}
    return {"rows": found, "learnt": learnt, "losses": Brittle(losses)}


def in_short(full: Any) -> Any:
    """All that an attack did as one digest, which other arithmetic changes."""
    return full if full == "refused" else Brittle(bits(str(_plain(full))))


def _plain(value: Any) -> Any:
    if isinstance(value, Brittle):
        return _plain(value.value)
    if isinstance(value, Tensor):
        return bits(value)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def reported(report: Report) -> Any:
    """An attack's report without its times."""
    document = report.model_dump(mode="json")
    document["job"] = {key: value for key, value in document["job"].items() if key not in ("base", "edit")}
    for name in TIMES:
        document["scores"].pop(name, None)
    kept = ("job", "scores", "excluded", "marks", "about")
    told = [{key: value for key, value in row.items() if key not in TIMES} for row in document["rows"]]
    short = {key: document[key] for key in kept} | {"rows": Brittle(told), "broken": Brittle(document["broken"])}
    for score in short["scores"].values():
        score.pop("note")
    short["marks"], short["about"] = len(short["marks"]), sorted(short["about"])
    return short


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", attack_names())
def test_every_knob_of_an_attack(name: str) -> None:
    kind, base = attack_class(name), QUICK[name]
    whole = tried(name, base, 3)
    full = {said: tried(name, knobs) for said, knobs in turned(kind, base) if said != "base"}
    full["seed=1"] = tried(name, base, seed=1)
    check(f"attacks/{name}", {"rows": whole, "turned": {said: in_short(each) for said, each in full.items()}})


@pytest.mark.parametrize("name", attack_names())
def test_what_an_attack_reports(name: str, tmp_path: Path) -> None:
    """Of four rows one is not drawn unedited, one shows it without an attack, and of the others one is broken."""
    toy = Toy()
    reader = Told((True, True, True, False), (True, False, False, False), (True,) * 4, (True,) * 4, (True, False))
    second = Told(*[(True, True, False, True)] * 4)
    settings = AttackSettings(suite=TINY, rows=rows(4), probe=reader, confirm=second, utility=False)
    how = build(name, None, QUICK[name])
    report = drain(attack(toy, shaken(toy), "Van Gogh", how, settings, folder=tmp_path))
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    check(f"attacks/report-{name}", {**reported(report), "files": [name for name in files if "cache" not in name]})


@pytest.mark.parametrize("name", ON_GANS)
def test_every_knob_of_an_attack_on_a_gan(name: str, tmp_path: Path) -> None:
    plan, gan = suite_of(tmp_path), ToyGan()
    names = [name for name, _ in gan.network.named_parameters() if "conv" in name]
    shapes = dict(gan.network.named_parameters())
    deltas = {name: 0.4 * torch.randn(shapes[name].shape, generator=stream(0, name)) for name in names}
    edit = Edit(deltas, {"method": "test", "concepts": [{"name": "eyeglasses"}]})

    def told(knobs: dict[str, Any], seed: int = 0, applied: Edit | None = edit) -> Any:
        how = build_on_gans(name, None, knobs)
        report = drain(
            attack_gan(ToyGan(), applied, "eyeglasses", how, GanAttackSettings(suite=plan, count=6, seed=seed))
        )
        return reported(report)

    found = {said: told(knobs) for said, knobs in turned(attack_kind(name), ON_GANS_QUICK[name])}
    found |= {"seed=1": told(ON_GANS_QUICK[name], 1), "unedited": told(ON_GANS_QUICK[name], 0, None)}
    for each in found.values():
        for named in (each["job"], *each["scores"].values()):
            named.pop("probe")  # named after a file whose bits other arithmetic changes
    check(f"attacks/{name}", {key: value if key == "base" else [value["scores"], value["rows"]]
                              for key, value in found.items()})  # fmt: skip


def test_rows_to_attack_and_their_digest(tmp_path: Path) -> None:
    table = 'case_number,prompt,evaluation_seed,evaluation_guidance\n7,"cats, van gogh",42,5.5\n9,dogs van gogh,,\n'
    (tmp_path / "p.csv").write_text(table, encoding="utf-8")
    (tmp_path / "p.txt").write_text("a van gogh cat\nthe sea\n", encoding="utf-8")
    found = {
        "suite": suite_rows(load_suite("pocket-canvas"), Target("style", "Van_Gogh"), 5),
        "csv": file_rows(tmp_path / "p.csv"),
        "txt": file_rows(tmp_path / "p.txt"),
    }
    told = {
        name: [[row.case, row.prompt, row.seed, row.guidance, row.key] for row in some] for name, some in found.items()
    }
    check("attacks/rows", {name: [digest(found[name]), lines] for name, lines in told.items()})


def test_names_of_attacks() -> None:
    check("attacks/names", [attack_names(), list(ON_GANS), every_attack()])
