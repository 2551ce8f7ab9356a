"""The page's handlers without a page: what the buttons ask for, what is shown of it, and what is refused."""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from app.cli.parser import parse
from app.queue import paths, queue
from app.runs.erase import erase_in
from app.runs.run import Run
from app.verbs import serve
from app.verbs.look import _kept, read_strengths
from app.web import actions, compare_view, forms, page, queue_view, run_view, tabs, task_view
from benchmarks.pages.strengths import Looked
from benchmarks.pictures.grid import Line, Pair, Verdict
from benchmarks.pictures.plots import front
from benchmarks.report import Report, Score
from erase.errors import BadInput
from erase.methods.registry import knobs, method, method_names
from erase.model import Shot
from erase.work import drain
from tests.app.runs.conftest import METHODS, begin, walk_job  # noqa: F401  (a fixture)
from tests.toys.denoiser import Toy

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(autouse=True)
def studio_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of tests, in which nobody works on the queue."""
    monkeypatch.setenv("ERASE_METHODS", str(METHODS))
    monkeypatch.setattr(queue, "start", lambda device=None: None)
    return tmp_path / "home"


@pytest.fixture
def run(tmp_path: Path, toy: Toy, begin: Callable[..., Run]) -> Run:  # noqa: F811
    """A finished run of the studio."""
    made = begin("home/runs/toy-cats-walk-1")
    drain(erase_in(made, toy, warn=pytest.fail))
    return made


class Tags(HTMLParser):
    """The tags of a page, to see which of them typed text has become."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def score(value: float) -> Score:
    return Score(value=value, n=40, low=value - 0.1, high=value + 0.05, baseline=0.1, better="high", probe="p@1")


def judged(run: Run, erased: float, kept: float) -> None:
    scores = {"UA": score(erased), "IRA": score(kept), "CRA": score(kept)}
    report = Report(scores=scores, job={"suite": "pocket-canvas-small"})
    (run.folder / "report.json").write_text(report.json_text())


def looked(run: Run, good: bool = True) -> None:
    lines = (
        Line("Target", "should be gone", (Pair(Shot(1, "a cat"), "", ""),), True),
        Line("Neighbours", "should stay", (Pair(Shot(2, HOSTILE), "", ""),), False),
    )
    strengths = (0.0, 0.5, 1.0)
    pictures = {s: torch.full((2, 3, 8, 8), s) for s in strengths}
    told = {s: [Verdict(("Cats", "Photo"), True), Verdict(("Dogs", "Photo"), good or s < 1)] for s in strengths}
    folder = run.folder / "look" / "0123"
    index = {"strengths": list(strengths), **_kept(Looked(lines, pictures, told, "p@1"), folder)}
    queue.write_json(folder / "index.json", index)


def test_erase_asks_for_the_commands_a_terminal_would_type() -> None:
    asked: dict[str, Any] = {"keep": ["Watercolor", "Dogs"], "seed": "3"}  # as the page's fields give them
    task = actions.erase(actions.Erasure("pocket-sd", "Van_Gogh\nCats", **asked))
    first, look, judge = task.commands
    args = parse(first)
    assert (args.concept, args.keep, args.method, args.seed) == (["Van_Gogh", "Cats"], ["Watercolor", "Dogs"], "uce", 3)
    assert args.resume
    assert Path(args.out) == task.run
    assert task.run.parent == paths.runs()
    assert (look, judge) == (("look", str(task.run)), ("judge", str(task.run)))
    assert task.run.name.startswith("pocket-sd-van-gogh-cats-uce-")


def test_the_same_job_is_one_task_and_another_is_another() -> None:
    first = actions.erase(actions.Erasure("pocket-sd", "Cats"))
    assert actions.erase(actions.Erasure("pocket-sd", " Cats ")).id == first.id
    assert actions.erase(actions.Erasure("pocket-sd", "Cats", seed=1)).run != first.run
    queue.cancel(first)
    assert actions.erase(actions.Erasure("pocket-sd", "Cats")).id == first.id
    assert first.status == "queued"


@pytest.mark.parametrize("said", [
    ({'concept': ""}, "What is to be erased"),
    ({'concept': "Cats", 'seed': "x"}, "The seed takes a whole number; 'x' is none"),
    ({'concept': "Catz"}, "Did you mean 'cat'"),
    ({'concept': "Cats", 'keep': ["cats"]}, "to be erased and kept"),
    ({'concept': "Cats", 'kind': "thing"}, "Unknown kind 'thing'"),
    ({'concept': "Cats", 'method': "esd", 'knobs': {"iterations": -1}}, "iterations = -1 is not valid"),
    ({'concept': HOSTILE}, "Unknown concept of pocket-sd"),
    ({'concept': "Cats", 'model': "--help"}, "not a model"),
])  # fmt: skip
def test_what_cannot_be_meant_is_a_sentence_and_no_task(said: tuple[dict[str, Any], str]) -> None:
    with pytest.raises(BadInput, match=said[1]):
        actions.erase(actions.Erasure(**{"model": "pocket-sd", **said[0]}))
    assert queue.tasks() == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "", "-x", "a\0b", "a" * 200])
def test_a_run_name_leads_nowhere_else(name: str) -> None:
    with pytest.raises(BadInput):
        paths.run_folder(name)
    with pytest.raises(BadInput):
        actions.finished(name)


def test_a_link_out_of_the_runs_folder_is_no_run(tmp_path: Path) -> None:
    paths.runs().mkdir(parents=True)
    (paths.runs() / "link").symlink_to(tmp_path)
    with pytest.raises(BadInput, match="not a valid name for a run"):
        paths.run_folder("link")


@pytest.mark.parametrize("name", method_names())
def test_every_knob_is_a_field_with_help_and_comes_back_unchanged(name: str) -> None:
    fields = forms.fields(name)
    assert [field.name for field in fields] == [knob.name for knob in knobs(method(name))]
    assert all(field.info for field in fields)
    assert forms.changed(name, {field.name: field.value for field in fields}) == {}
    for preset in method(name).presets:
        values = {field.name: field.value for field in forms.fields(name, preset)}
        words = [word for knob, value in forms.changed(name, values).items() for word in forms.typed(knob, value)]
        read = {key[5:]: text for key, text in vars(_erase_args(name, words)).items() if key.startswith("knob_")}
        again = {knob: text for knob, text in read.items() if text is not None}
        assert forms.changed(name, again) == forms.changed(name, values)


def _erase_args(name: str, words: list[str]) -> Any:
    return parse(["erase", "pocket-sd", "--concept", "Cats", "--method", name, "--out", "x", *words])


def test_actions_on_a_run_need_its_edit(run: Run, begin: Callable[..., Run]) -> None:  # noqa: F811
    begin("home/runs/unfinished", seed=1)
    with pytest.raises(BadInput, match="is lost and has no edit yet"):
        actions.look("unfinished")
    with pytest.raises(BadInput, match="There is no run yet"):
        actions.measure("")
    name = run.folder.name
    assert actions.look(name, "a cat", "0:3").commands == (
        ("look", str(run.folder), "--prompt", "a cat", "--seeds", "0:3"),
    )
    assert actions.attack(name, "paraphrase").commands[0][:4] == ("attack", str(run.folder), "--concept", "Cats")
    with pytest.raises(BadInput, match="Unknown export format 'zip'"):
        actions.export(name, "zip")
    with pytest.raises(BadInput, match="not been exported as pipeline yet"):
        actions.packed(name, "pipeline")
    whole, thin = (actions.export(name, "edit", 0.5, *more).commands[0] for more in ((), ("fp16", 5)))
    assert whole[-3:] == ("--force", "--strength", "0.5")
    assert thin == (*whole, "--dtype", "fp16", "--size", "5")
    with pytest.raises(BadInput, match="fp7"):
        actions.export(name, "edit", dtype="fp7")


def test_an_export_is_downloaded_as_it_is_or_as_a_zip(run: Run) -> None:
    one, folder = actions.exported(run, "edit"), actions.exported(run, "pipeline")
    for file in (one, folder / "unet" / "weights"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"whole")
    assert actions.packed(run.folder.name, "edit").read_bytes() == b"whole"
    archive = actions.packed(run.folder.name, "pipeline")
    assert archive.suffix == ".zip"
    assert archive.parent == paths.home() / "downloads"


def test_typed_text_is_never_markup(run: Run) -> None:
    task = queue.submit("look", HOSTILE, run.folder, [["metrics"]])
    task.note("failed", command=0, error={"kind": "bad-input", "message": HOSTILE})
    looked(run)
    for text in (task_view.progress(task.id), queue_view.tasks(), run_view.before_after(run.folder.name)):
        tags = Tags(text).found
        assert not [tag for tag in tags if "onerror" in tag[1]]
        assert not [tag for tag in tags if tag[0] == "img" and not (tag[1]["src"] or "").startswith("data:image/")]
        assert "onerror" in text  # it is shown, as text


def test_before_and_after_at_the_nearest_strength_with_an_alarm(run: Run) -> None:
    name = run.folder.name
    assert "No pictures yet" in run_view.before_after(name)
    looked(run, good=False)
    half = run_view.before_after(name, 0.6)
    assert "at strength <b>0.5</b>" in half
    assert "Over-erasure" not in half
    assert "1 of 1 pictures" in run_view.before_after(name, 1.0)
    pictures = [tag[1] for tag in Tags(half).found if tag[0] == "img"]
    assert next(picture["alt"] for picture in pictures) == "before, seed 1, prompt a cat, probe: Cats, Photo"
    assert len({picture["src"] for picture in pictures}) == 2  # strength 0 and 0.5
    before, after = run_view.slider_pair(name, 1.0) or (None, None)
    assert before.getpixel((0, 0)) == (0, 0, 0)
    assert after.getpixel((0, 0)) == (255, 255, 255)


def test_scores_stand_beside_the_unedited_models(run: Run) -> None:
    assert "Not measured yet" in run_view.scores(run.folder.name)
    judged(run, 0.9, 0.8)
    told = run_view.scores(run.folder.name)
    assert all(text in told for text in ("90.0 %", "80.0 % – 95.0 %", "40", "10.0 %"))


def test_runs_are_compared_and_the_better_ones_are_marked(
    run: Run, toy: Toy, begin: Callable[..., Run]  # noqa: F811
) -> None:  # fmt: skip
    assert "Nothing to compare yet" in compare_view.compare()
    other = begin("home/runs/worse", seed=9)
    drain(erase_in(other, toy, warn=pytest.fail))
    judged(run, 0.9, 0.8)
    judged(other, 0.5, 0.4)
    page = compare_view.compare()
    assert page.count("<svg ") == 1
    points = compare_view._points(compare_view._measured())
    assert [(point.x, point.y) for point in front(points, compare_view.SPARED, compare_view.ERASED)] == [(0.8, 0.9)]
    assert len(points) == 2
    assert "seed is 0 there and 9 here" in compare_view.contrast(run.folder.name, "worse")
    report = Report.read(other.folder / "report.json").model_copy(update={"job": {"suite": "another"}})
    (other.folder / "report.json").write_text(report.json_text())
    assert "Not comparable as they stand" in compare_view.compare()


def test_progress_shows_steps_losses_and_what_to_do(run: Run) -> None:
    assert "No task is running" in task_view.progress("")
    task = actions.measure(run.folder.name)
    assert "0 before it in the queue" in task_view.progress(task.id)
    with queue.held(task):
        task.note("running", command=0, what="x", stage="draw", done=3, total=12, left=20.0)
        shown = task_view.progress(task.id)
    assert "draw 3 of 12, about 20 s left" in shown
    assert 'value="0.250"' in shown or "value=0.250" in shown
    assert 'aria-label="losses of scores of' in shown
    assert '<path d="M' in shown
    assert "Press Resume" in task_view.progress(task.id)  # nobody holds it any more
    assert task_view.losses(run.folder)["length"][-1] == (8, 8.0)
    assert task_view.task_of(run.folder.name) == task.id == task_view.current()


def test_strengths_are_read_and_refused() -> None:
    assert read_strengths("1,0,0.5") == [0.0, 0.5, 1.0]
    with pytest.raises(BadInput, match="not a list of strengths"):
        read_strengths("much")


def test_other_machines_need_a_login() -> None:
    with pytest.raises(BadInput, match="needs a login"):
        serve.serve(parse(["serve", "--host", "0.0.0.0"]))
    with pytest.raises(BadInput, match="both not empty"):
        serve.serve(parse(["serve", "--auth", "me:"]))
    with pytest.raises(BadInput, match="--port: 70000 is not valid"):
        parse(["serve", "--port", "70000"])


def test_a_missing_gradio_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'concept-erasure-studio\[studio\]'"):
        serve.serve(parse(["serve"]))


def test_no_other_verb_imports_gradio() -> None:
    code = "import sys, app.cli.main; app.cli.main.main(['metrics']); assert not {'gradio', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_answers_confine_the_browser_and_pages_name_no_other_host() -> None:
    pytest.importorskip("gradio")
    server = importlib.import_module("app.web.server")
    page = (
        b'<html><meta content="https://elsewhere.example/x.png"/><link href="https://fonts.example">' + b"<p>here</p>"
    )

    async def served(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(page)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": page[:20], "more_body": True})
        await send({"type": "http.response.body", "body": page[20:]})

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(server.confined(served)({"type": "http", "headers": []}, None, send))
    headers = dict(sent[0]["headers"])
    assert b"connect-src 'self'" in headers[b"content-security-policy"]
    assert b"example" not in sent[1]["body"]
    assert b"<p>here</p>" in sent[1]["body"]
    assert headers[b"content-length"] == str(len(sent[1]["body"])).encode()


def test_the_login_takes_the_whole_pair() -> None:
    pytest.importorskip("gradio")
    check = importlib.import_module("app.web.server")._checker(("me", "secret"))
    assert check("me", "secret")
    assert not any(check(*pair) for pair in (("me", "Secret"), ("you", "secret"), ("", "")))


def test_a_run_from_elsewhere_is_adopted_once(tmp_path: Path, toy: Toy, begin: Callable[..., Run]) -> None:  # noqa: F811
    there = begin("elsewhere")
    with pytest.raises(BadInput, match="holds no edit yet"):
        actions.adopt(str(there.folder))
    drain(erase_in(there, toy, warn=pytest.fail))
    adopted = actions.adopt(str(there.folder))
    assert adopted.folder.parent == paths.runs()
    assert adopted.edit().hash == there.edit().hash
    actions.adopt(str(there.folder))
    assert [task.kind for task in queue.tasks()] == ["look"]
    assert [name for _, name in task_view.run_names()] == [adopted.folder.name]


def test_a_run_is_in_the_list_from_the_moment_it_is_asked_for(run: Run) -> None:
    first, second = (actions.erase(actions.Erasure("pocket-sd", name, measure=False)) for name in ("Cats", "Dogs"))
    names = [name for _, name in tabs.run_list()]
    assert names == [second.run.name, first.run.name, run.folder.name]
    assert next(name for _, name in tabs.run_list("another")) == "another"
    walk_in = queue.tasks()[0].run
    walk_in.mkdir(parents=True)
    (walk_in / "job.json").write_bytes((run.folder / "job.json").read_bytes())
    assert sorted(name for _, name in tabs.run_list()) == sorted(names)  # once, now that it has a folder


def test_the_page_lets_lists_grow_and_renders_one_at_a_time() -> None:
    blocks = page.page()
    [chosen] = [part["props"] for part in blocks.config["components"] if part["props"].get("elem_id") == "run"]
    assert chosen["allow_custom_value"]  # each tick takes the run as it is, be it in the list of then or not
    renders = [each for each in blocks.fns.values() if each.renderable is not None]
    assert len(renders) == 2
    assert {(each.concurrency_id, each.concurrency_limit) for each in renders} == {("render", 1)}


def test_own_prompts_and_standard_rows_are_two_things(run: Run) -> None:
    looked(run)
    standard = run_view.before_after(run.folder.name)
    folder = run.folder / "look" / "4567"
    line = Line("my words", "", (Pair(Shot(9, "my words"), "", ""),), False)
    pictures = {0.0: torch.zeros(1, 3, 8, 8), 1.0: torch.ones(1, 3, 8, 8)}
    verdict = {at: [Verdict(("Cats", "Photo"), None)] for at in pictures}
    kept = _kept(Looked((line,), pictures, verdict, "p@1"), folder)
    queue.write_json(folder / "index.json", {"strengths": [0.0, 1.0], "prompts": ["my words"], **kept})
    both = run_view.before_after(run.folder.name)
    assert "Target" in both and "Neighbours" in both and "Your own" in both and "my words" in both
    assert "Your own" not in standard
    assert "Over-erasure" not in both


def test_unedited_pictures_are_not_judged(run: Run) -> None:
    looked(run, good=False)
    shown = run_view.before_after(run.folder.name, 1.0)
    assert (shown.count("✓") - 1, shown.count("✕") - 1) == (1, 1)  # one of each after, and the two of the legend


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda name: actions.erase(actions.Erasure("nonsense", "Cats")), "Unknown model 'nonsense'"),
        (lambda name: actions.erase(actions.Erasure("/etc/passwd", "Cats")), "is not a file of weights"),
        (lambda name: actions.erase(actions.Erasure("/etc", "Cats")), "neither a model nor a run"),
        (lambda name: actions.erase(actions.Erasure(None, "Cats")), "From which model"),
        (lambda name: actions.erase(actions.Erasure("pocket-sd", None)), "What is to be erased"),
        (lambda name: actions.erase(actions.Erasure("pocket-sd", "Cats", seed=None)), "The seed is empty"),
        (lambda name: actions.erase(actions.Erasure("pocket-sd", "Cats", seed=-5)), "from 0 on"),
        (lambda name: actions.look(name, "a cat", "-5"), "names no seeds"),
        (lambda name: actions.look(name, "a cat", "abc"), "names no seeds"),
        (lambda name: actions.look(name, "a cat", "5:1"), "names no seeds"),
        (lambda name: actions.look(name, "a cat", "0:100000"), "Give at most 10000"),
        (lambda name: actions.attack(name, "random", rows=0), "from 1 to 1,000"),
        (lambda name: actions.attack(name, "random", rows=999999999), "from 1 to 1,000"),
        (lambda name: actions.attack(name, "random", rows=None), "The number of prompts is empty"),
        (lambda name: actions.attack(name, "random", budget="-1"), "from 1 on"),
        (lambda name: actions.take_off(name, 0), "from 1 on"),
        (lambda name: actions.take_off(name, 3), "choose another number"),
        (lambda name: actions.take_off(name, None), "is empty"),
        (lambda name: actions.export(name, "pipeline", size=5.0), "pipeline"),
    ],
)
def test_wrong_input_is_refused_at_the_click(run: Run, ask: Callable[[str], object], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        ask(run.folder.name)
    assert not queue.tasks()


def test_empty_fields_are_what_they_are_without_an_entry(run: Run) -> None:
    name = run.folder.name
    assert actions.look(name, None, None).commands == (("look", str(run.folder)),)
    assert "--strength 1" in " ".join(actions.export(name, "edit", None, None, None).commands[0])
    assert "--concept Cats" in " ".join(actions.attack(name, "random", None, None).commands[0])


def test_a_run_without_an_edit_says_how_it_stands(begin: Callable[..., Run]) -> None:  # noqa: F811
    begin("home/runs/unfinished", seed=1)
    for view in (run_view.ledger, run_view.formats):
        assert "This run is lost and has no edit yet" in view("unfinished")
        assert "This run is not begun" in view("soon")
    assert "No run chosen" in run_view.ledger("")


def test_the_terminals_words_are_no_part_of_what_is_drawn_anew(run: Run) -> None:
    task = actions.look(run.folder.name)
    assert task_view.terminal(task.id) == f"studio look {run.folder}"
    assert "<details" not in task_view.progress(task.id)
    assert task_view.terminal("") == ""


def test_no_rule_of_ours_is_about_a_class_of_gradios() -> None:
    rules = re.findall(r"\.([a-z][\w-]*)", re.sub(r"\{[^}]*\}", "", page.CSS))
    assert not {"error", "card", "panel", "empty", "note"} & set(rules)
