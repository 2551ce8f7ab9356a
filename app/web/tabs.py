"""The tabs: which controls each has, and which action or view every one of them calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

import generators
from app.cli.options import DTYPES, KINDS
from app.web import actions, compare_view, forms, gallery, run_view, task_view
from app.web import labels as kept
from app.web.templates import render
from benchmarks.attacks.registry import attack_names
from erase.errors import BadInput
from generators.export.format import FORMS
from generators.pocket.faces.words import ATTRIBUTES

HIDDEN: dict[str, Any] = {"api_visibility": "private"}  # programs have names of their own, in `api`
QUIET: dict[str, Any] = {**HIDDEN, "show_progress": "hidden"}
# One at a time, in order: what was typed into a form is there before the button beside it is heard.
FORM: dict[str, Any] = {"concurrency_id": "form", "concurrency_limit": 1}
GALLERY = (Path(__file__).parent / "gallery.js").read_text(encoding="utf-8")
FIRST = {"denoiser": actions.METHOD, "gan": actions.MARKED_BY}  # the method a family's form opens with


def report_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The same handler; a mistake becomes a sentence on the page."""

    @contextmanager
    def reported() -> Iterator[None]:
        try:
            yield
        except BadInput as error:
            raise gr.Error(escape(str(error)), title="Invalid input", print_exception=False) from None

    @functools.wraps(handler)
    def answer(*args: Any, **named: Any) -> Any:
        with reported():
            return handler(*args, **named)

    @functools.wraps(handler)
    async def answer_later(*args: Any, **named: Any) -> Any:
        with reported():
            return await handler(*args, **named)

    return answer_later if inspect.iscoroutinefunction(handler) else answer


def erase(task: gr.State, run: gr.Dropdown) -> gr.HTML:
    """What is to go, how, and how far that has come."""
    values = gr.State({})
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            with gr.Group():
                model = gr.Dropdown(
                    sorted(generators.BUNDLED, reverse=True), value="pocket-sd", label="Model", allow_custom_value=True,
                    info="A bundled model, a run's name (stacks on it), a pipeline folder, or a file of weights",
                )  # fmt: skip
                concept = gr.Textbox(label="Concept", placeholder="Van Gogh", lines=1, max_lines=6,
                                     info="What to erase, one a line")  # fmt: skip
                with gr.Row():
                    kind = gr.Dropdown([("by its name", ""), *KINDS], value="", label="Kind", min_width=140)
                    anchor = gr.Textbox(label="Anchor", placeholder="drawn instead; by kind", min_width=140)
                keep = gr.Dropdown([], value=[], multiselect=True, allow_custom_value=True, label="Keep",
                                   info="What must not change; neighbours are harmed first")  # fmt: skip
                propose = gr.Button("Propose neighbours", size="sm")
            with gr.Group():
                method = gr.Radio(forms.offered("denoiser"), value=actions.METHOD, label="Method", elem_id="method")
                about = gr.HTML(_card(actions.METHOD, "pocket-sd"))
                preset = gr.Dropdown(forms.presets(actions.METHOD), value=forms.OWN, label="Preset", elem_id="preset")
            _settings(method, preset, values, "settings")
            with gr.Row():
                seed = gr.Textbox("0", label="Seed", min_width=100)
                measure = gr.Checkbox(True, label="Measure afterwards", info="Judge before and after", min_width=140)
            start = gr.Button("Erase", variant="primary", size="lg", elem_id="start")
        with gr.Column(scale=6, min_width=320):
            watch = gr.HTML(task_view.progress(""), elem_id="progress")
            with gr.Row(elem_id="control"):
                pausing = gr.Button("Pause", size="sm", min_width=90)
                keeping = gr.Button("Cancel, keep", size="sm", min_width=110)
                discarding = gr.Button("Cancel, discard", size="sm", min_width=110)
                going_on = gr.Button("Resume", size="sm", min_width=90)
                ending = gr.Button("Force stop", size="sm", min_width=90)
            with gr.Accordion("The same in a terminal", open=False, elem_id="terminal"):
                typed = gr.Code(language="shell", interactive=False, show_label=False, wrap_lines=True)
    task.change(task_view.terminal, task, typed, **QUIET)

    model.change(report_errors(_of_family), model, method, **QUIET)
    method.change(lambda name, m: (_card(name, m), gr.Dropdown(forms.presets(name), value=forms.OWN), {}),
                  [method, model], [about, preset, values], **QUIET, **FORM)  # fmt: skip
    preset.change(report_errors(_preset), [method, preset], values, **QUIET, **FORM)
    propose.click(report_errors(_proposed), [model, concept], keep, **HIDDEN)

    asked = [model, concept, kind, anchor, keep, method, values, seed, measure]
    begin = report_errors(lambda *asked: _begun(actions.erase(actions.Erasure(*asked))))
    start.click(begin, asked, [task, run], **HIDDEN, **FORM)
    pausing.click(report_errors(lambda name: _stopped(actions.pause(name))), task, None, **HIDDEN)
    keeping.click(report_errors(lambda name: _stopped(actions.cancel(name))), task, None, **HIDDEN)
    discarding.click(report_errors(lambda name: _stopped(actions.cancel(name, True))), task, None, **HIDDEN)
    going_on.click(report_errors(lambda name: actions.resume(name).id), task, task, **HIDDEN)
    ending.click(report_errors(lambda name: _stopped(actions.force(name))), task, None, **HIDDEN)
    return watch


def look(task: gr.State, run: gr.Dropdown) -> list[Any]:
    """Before and after at any strength, with scores beside the pictures."""
    with gr.Row():
        with gr.Column(scale=6, min_width=320):
            about = "0: unedited model, 1: full edit; nothing is trained again"
            strength = gr.Slider(0, 1.5, value=1.0, step=0.25, label="Strength", elem_id="strength", info=about)
            pictures = gr.HTML(elem_id="pictures")
        with gr.Column(scale=5, min_width=320):
            over = gr.ImageSlider(label="The first shot, before over after", type="pil", height=540, interactive=False)
            scored = gr.HTML(elem_id="scores")
            with gr.Row():
                measure = gr.Button("Measure", min_width=120)
                auto = gr.Button("Find the best strength", min_width=160)
            with gr.Group():
                prompt = gr.Textbox(label="Your own prompt", placeholder="A Cats image in Van Gogh style.")
                seeds = gr.Textbox(label="Seeds", placeholder="0:2", min_width=100)
                draw = gr.Button("Draw", size="sm")
    strength.change(report_errors(_at_strength), [run, strength], [pictures, over], **QUIET)
    begun = report_errors(lambda *asked: actions.look(*asked).id)
    draw.click(begun, [run, prompt, seeds], task, **HIDDEN)
    measure.click(report_errors(lambda name: actions.measure(name).id), run, task, **HIDDEN)
    auto.click(report_errors(lambda name: actions.strength(name).id), run, task, **HIDDEN)
    return [pictures, over, scored]


def mark(task: gr.State, run: gr.Dropdown, all_tabs: gr.Tabs) -> tuple[list[Any], gr.HTML]:
    """A GAN's latents to be marked, and the erasure that learns from the marks."""
    values, method = gr.State({}), gr.State(actions.MARKED_BY)
    gans = [name for name in generators.BUNDLED if name.endswith("-gan")]
    with gr.Row():
        with gr.Column(scale=7, min_width=320):
            pictures = gr.HTML(gallery.latents(gans[0], ""), elem_id="latents", js_on_load=GALLERY)
        with gr.Column(scale=4, min_width=300):
            with gr.Group():
                model = gr.Dropdown(gans, value=gans[0], label="GAN", allow_custom_value=True,
                                    info="A bundled GAN, its folder, or a .safetensors, .pkl or .pt file")  # fmt: skip
                concept = gr.Dropdown(list(ATTRIBUTES), value=None, label="What are you marking?",
                                      allow_custom_value=True, elem_id="marked-concept")  # fmt: skip
                first = gr.Number(0, label="First seed", precision=0, minimum=0, step=gallery.COUNT)
                with gr.Row():
                    draw = gr.Button("Draw", size="sm", min_width=90, elem_id="draw-latents")
                    later = gr.Button("Further latents", size="sm", min_width=120)
            counted = gr.HTML(gallery.counted(gans[0], ""), elem_id="marked")
            gr.HTML(
                "<p><small>Click: has it, has it not, not marked. Or the keys P, N and U, and the arrows.</small></p>"
            )
            preset = gr.Dropdown(forms.presets(actions.MARKED_BY), value=forms.OWN, label="Preset")
            _settings(method, preset, values, "marked-settings")
            measure = gr.Checkbox(
                True, label="Measure afterwards", info="Judge before and after", elem_id="gallery-measure"
            )
            seed = gr.Textbox("0", label="Seed")
            start = gr.Button("Erase what is marked", variant="primary", elem_id="start-marked")

    @report_errors
    def told(model: str, concept: str | None, first: int, event: gr.EventData) -> tuple[Any, Any]:
        try:
            kept.mark(model, concept or "", int(event.seed), event.mark)
        except BadInput as error:
            gr.Warning(escape(str(error)), title="Not marked")
            return gallery.latents(model, concept, first), gallery.counted(model, concept)
        return gr.skip(), gallery.counted(model, concept)

    @report_errors
    def shown(model: str, concept: str | None, first: int) -> tuple[str, str]:
        return gallery.latents(model, concept, first), gallery.counted(model, concept)

    place = [model, concept, first]
    # One at a time: two clicks on one picture are kept in their order.
    pictures.select(told, place, [pictures, counted], trigger_mode="multiple", concurrency_limit=1, **QUIET)
    gr.on([model.change, concept.change, first.change], shown, place, [pictures, counted], **QUIET)
    preset.change(report_errors(_preset), [method, preset], values, **QUIET, **FORM)
    draw.click(report_errors(lambda *asked: actions.draw_latents(*asked).id), [model, first], task, **HIDDEN)
    later.click(lambda at: (at or 0) + gallery.COUNT, first, first, **QUIET).then(
        report_errors(lambda *asked: actions.draw_latents(*asked).id), [model, first], task, **QUIET
    )
    begin = report_errors(lambda *asked: _begun(actions.erase_marked(*asked)))
    begun = start.click(begin, [model, concept, values, seed, measure], [task, run], **HIDDEN, **FORM)
    begun.success(lambda: gr.Tabs(selected="erase"), None, all_tabs, **QUIET)
    return place, pictures


def attack(task: gr.State, run: gr.Dropdown) -> gr.HTML:
    """Which attack, how hard, and what it brought back."""
    with gr.Row(elem_classes="bar"):
        name = gr.Dropdown(attack_names(), value="paraphrase", label="Attack", min_width=160)
        concept = gr.Textbox(label="Concept", placeholder="what the run erased", min_width=160)
        budget = gr.Textbox(label="Budget", placeholder="tries per prompt", min_width=120)
        rows = gr.Textbox(str(actions.ROWS), label="Prompts", min_width=120)
        start = gr.Button("Attack", variant="primary", min_width=120, elem_id="start-attack")
    found = gr.HTML(elem_id="attacks")
    start.click(
        report_errors(lambda *asked: actions.attack(*asked).id),
        [run, name, concept, budget, rows],
        task,
        **HIDDEN,
    )
    return found


def compare(run: gr.Dropdown) -> list[Any]:
    """Every measured run, and two of them side by side."""
    table = gr.HTML(elem_id="compare")
    with gr.Row(elem_classes="bar"):
        other = gr.Dropdown(run_list(), label="Compare the run above with", scale=4, elem_id="other")
        beside = gr.Button("Side by side", scale=0, min_width=140)
    sides = gr.HTML(elem_id="sides")
    beside.click(report_errors(compare_view.contrast), [run, other], sides, **HIDDEN)
    return [table, other]


def ledger(task: gr.State, run: gr.Dropdown) -> gr.HTML:
    """The edits stacked in a run, and one of them removed."""
    listed = gr.HTML(elem_id="ledger")
    with gr.Row(elem_classes="bar"):
        number = gr.Textbox(label="Number of the edit to remove", min_width=120)
        off = gr.Button("Remove it, in a new run", min_width=160)
    off.click(report_errors(lambda *asked: actions.take_off(*asked).id), [run, number], task, **HIDDEN)
    return listed


def export(task: gr.State, run: gr.Dropdown) -> gr.HTML:
    """The formats, an export with its proof, its card and its download."""
    listed = gr.HTML(elem_id="formats")
    with gr.Row(elem_classes="bar"):
        form = gr.Dropdown(list(FORMS), value=FORMS[0], label="Format", min_width=160, elem_id="format")
        strength = gr.Number(1.0, label="Strength", minimum=0, maximum=10, min_width=120)
        dtype = gr.Dropdown([("as the model's", ""), *DTYPES], value="", label="Weights", min_width=140)
        size = gr.Number(None, label="At most, MB", minimum=0, min_width=120, info="For edit and LoRA; empty: no limit")
        start = gr.Button("Export", variant="primary", min_width=120, elem_id="start-export")
        fetch = gr.Button("Prepare the download", min_width=160)
    file = gr.File(label="Download", interactive=False, height=110, elem_id="download")
    card = gr.Markdown("*The model card of an export is shown here, with the proof that it loads.*", elem_id="card")
    begin = report_errors(lambda *asked: actions.export(*asked).id)
    start.click(begin, [run, form, strength, dtype, size], task, **HIDDEN)
    download = report_errors(lambda *asked: (str(actions.packed(*asked)), run_view.card(*asked)))
    fetch.click(download, [run, form], [file, card], **HIDDEN)
    return listed


def run_list(also: str = "") -> list[tuple[str, str]]:
    """The runs for a list, those that wait or have only just begun among them; `also` is never missing."""
    known = [*task_view.coming(), *task_view.run_names()]
    return known if also in ("", *(name for _, name in known)) else [(also, also), *known]


def looked(run: str) -> list[Any]:
    """What Before / after shows of a run when it is opened."""
    return [*_at_strength(run, 1.0), run_view.scores(run or "") + run_view.best_strength(run or "")]


def _at_strength(run: str, strength: float) -> list[Any]:
    return [run_view.before_after(run or "", strength), run_view.slider_pair(run or "", strength)]


def _settings(method: gr.Radio | gr.State, preset: gr.Dropdown, values: gr.State, name: str) -> None:
    """The form of whichever method is chosen; each control writes its own value into `values`."""
    with gr.Accordion("Settings of the method", open=False, elem_id=name):
        gr.Markdown("Every field is read from the method itself; an empty one is left to the method.")

        # One at a time: two renders of one visitor's page at once would change one another's components.
        @gr.render(inputs=[method, preset], concurrency_limit=1, concurrency_id="render")
        def fields(name: str, chosen: str) -> None:
            with gr.Row():
                for field in forms.fields(name, chosen):
                    _control(field, values)


def _control(field: forms.Field, values: gr.State) -> None:
    common: dict[str, Any] = {"label": field.label, "info": field.info, "min_width": 260, "interactive": True}
    if field.kind == "check":
        control: Any = gr.Checkbox(field.value, **common)
    elif field.kind == "choice":
        control = gr.Dropdown(list(field.choices), value=field.value, **common)
    elif field.kind in ("whole", "number"):
        control = gr.Number(field.value, precision=0 if field.kind == "whole" else None, **common)
    else:
        control = gr.Textbox(field.value, **common)
    write = functools.partial(_written, field.name)
    control.change(write, [values, control], values, **QUIET, **FORM)


def _of_family(model: str) -> Any:
    """The methods that suit a model."""
    family = actions.family(model)
    return gr.Radio(forms.offered(family), value=FIRST[family])


def _card(method: str, model: str) -> str:
    card = forms.card(method)
    return render("pieces.card", **card, estimate=task_view.estimate(model, method))


def _preset(method: str, preset: str) -> dict[str, Any]:
    return {field.name: field.value for field in forms.fields(method, preset)}


def _written(name: str, values: dict[str, Any], value: Any) -> dict[str, Any]:
    return {**values, name: value}


async def _proposed(model: str, concept: str) -> Any:
    near = await actions.neighbours(model, concept)
    return gr.Dropdown(near, value=near[:4])


def _begun(made: actions.Task) -> tuple[str, Any]:
    return made.id, gr.Dropdown(run_list(made.run.name), value=made.run.name)


def _stopped(status: str) -> None:
    gr.Info(f"The task is {status}.")
