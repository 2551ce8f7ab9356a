"""The page in Gradio: where things stand and which handler they call. It holds no logic."""

from __future__ import annotations

import functools
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

import generators
from app.options import KINDS
from app.studio import actions, forms, results, shelf, views
from benchmarks.attacks import attack_names
from erase.errors import BadInput
from generators.export.form import FORMS

TICK = 1.5  # seconds between two looks at the queue
CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
HEAD = '<meta name="robots" content="noindex"><meta name="color-scheme" content="light dark">'
# The address keeps the run, so that a reload or a link returns to it.
REMEMBER = "(run) => { if (run) history.replaceState(null, '', '?run=' + encodeURIComponent(run)); }"
TITLE = "Concept erasure studio"
MOTTO = "Erase a concept, see what else went, attack it, carry it away."
SYSTEM = ["system-ui", "sans-serif"]
QUIET: dict[str, Any] = {"show_progress": "hidden", "queue": True}


def theme() -> gr.themes.Base:
    """Gradio's base in the system's own fonts."""
    mono = ["ui-monospace", "monospace"]
    return gr.themes.Default(primary_hue="teal", neutral_hue="slate", radius_size="sm", font=SYSTEM, font_mono=mono)


def said(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The same handler; a mistake becomes a sentence on the page."""

    @functools.wraps(handler)
    def answered(*args: Any, **named: Any) -> Any:
        try:
            return handler(*args, **named)
        except BadInput as error:
            raise gr.Error(escape(str(error)), title="That will not do", print_exception=False) from None

    return answered


def page() -> gr.Blocks:
    """All of it."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(f"<header><h1>{TITLE}</h1><p>{MOTTO}</p></header>")
        task, drawn = gr.State(""), gr.State("")
        with gr.Row(elem_classes="bar"):
            about = "What the tabs from Before / after to Export show"
            run = gr.Dropdown(_runs(), label="Run", info=about, scale=4, min_width=260)
            refresh = gr.Button("Refresh list", scale=0, min_width=120)
        with gr.Tabs():
            with gr.Tab("Erase", id="erase"):
                watch = _erase(task, run)
            with gr.Tab("Before / after", id="look") as look_tab:
                look = _look(task, run)
            with gr.Tab("Attack", id="attack") as attack_tab:
                attacked = _attack(task, run)
            with gr.Tab("Compare", id="compare") as compare_tab:
                compared = _compare(run)
            with gr.Tab("Ledger", id="ledger") as ledger_tab:
                worn = _ledger(task, run)
            with gr.Tab("Export", id="export") as export_tab:
                carried = _export(task, run)
        with gr.Accordion("Queue and history", open=True):
            queued = gr.HTML(views.tasks(), elem_id="queue")

        @said
        def look_again(task_id: str, run_name: str, shown: str) -> tuple[Any, ...]:
            """Progress and queue; when the task has just ended, also everything that shows its run."""
            ended = views.ended(task_id)
            fresh = ended and ended != shown
            news = _results(run_name) if fresh else [gr.skip()] * 5
            return views.progress(task_id), views.tasks(), ended, *news

        shown = [watch, queued, drawn, *look, attacked, worn]
        gr.Timer(TICK).tick(look_again, [task, run, drawn], shown, api_visibility="private", **QUIET)

        def opened(request: gr.Request) -> tuple[Any, ...]:
            """Whoever comes back finds the run of the address, or what is at work."""
            asked = request.query_params.get("run") or ""
            known = [name for _, name in views.run_names()]
            chosen = asked if asked in known else next(iter(known), None)
            found = views.task_of(asked) if asked in known else views.current()
            return gr.Dropdown(_runs(), value=chosen), found, views.progress(found), views.tasks()

        blocks.load(opened, None, [run, task, watch, queued], api_visibility="private", **QUIET)
        refresh.click(lambda: gr.Dropdown(_runs()), None, run, api_visibility="private")
        run.change(None, run, None, js=REMEMBER)
        run.change(_results, run, [*look, attacked, worn], api_visibility="private", **QUIET)
        for tab, part, view in (
            (look_tab, look, _looked), (attack_tab, [attacked], said(results.attacks)),
            (ledger_tab, [worn], said(shelf.ledger)), (export_tab, [carried], said(shelf.formats)),
        ):  # fmt: skip
            tab.select(view, run, part, api_visibility="private")
        compare_tab.select(said(shelf.compare), None, compared, api_visibility="private")
    return blocks


def _erase(task: gr.State, run: gr.Dropdown) -> gr.HTML:
    values = gr.State({})
    with gr.Row():
        with gr.Column(scale=5, min_width=320):
            models = [name for name in generators.BUNDLED if name.endswith("-sd")]
            model = gr.Dropdown(
                models, value=models[0], label="Model", allow_custom_value=True,
                info="A bundled model, a run's name (stacks on it), a pipeline folder, or a .safetensors file",
            )  # fmt: skip
            concept = gr.Textbox(label="Concept", placeholder="Van Gogh", lines=1, max_lines=6,
                                 info="What should go, one a line")  # fmt: skip
            with gr.Row():
                kind = gr.Dropdown([("as its name says", ""), *KINDS], value="", label="Kind", min_width=140)
                anchor = gr.Textbox(label="Anchor", placeholder="by kind: painting for a style",
                                    info="What is drawn instead", min_width=140)  # fmt: skip
            keep = gr.Dropdown([], value=[], multiselect=True, allow_custom_value=True, label="Keep",
                               info="What must not change; neighbours are lost first")  # fmt: skip
            propose = gr.Button("Propose neighbours", size="sm")
            method = gr.Radio(forms.offered("denoiser"), value="uce", label="Method")
            about = gr.HTML(_card("uce", "pocket-sd"))
            preset = gr.Dropdown(forms.presets("uce"), value=forms.OWN, label="Preset")
            with gr.Accordion("Settings of the method", open=False):
                gr.Markdown("Every field is read from the method itself; an empty one is left to the method.")

                @gr.render(inputs=[method, preset], triggers=[method.change, preset.change])
                def settings(name: str, chosen: str) -> None:
                    _fields(name, chosen, values)

            with gr.Row():
                seed = gr.Textbox("0", label="Seed", min_width=100)
                measure = gr.Checkbox(True, label="Measure afterwards", info="Judge before and after", min_width=140)
            start = gr.Button("Erase", variant="primary", elem_id="start")
        with gr.Column(scale=6, min_width=320):
            watch = gr.HTML(views.progress(""), elem_id="progress")
            with gr.Row():
                keeping = gr.Button("Cancel, keep what is done", size="sm", min_width=140)
                discarding = gr.Button("Cancel and discard", size="sm", min_width=140)
                going_on = gr.Button("Resume", size="sm", min_width=100)
                ending = gr.Button("Force stop", size="sm", variant="stop", min_width=100)

    method.change(lambda name, m: (_card(name, m), gr.Dropdown(forms.presets(name), value=forms.OWN), {}),
                  [method, model], [about, preset, values], api_visibility="private", **QUIET)  # fmt: skip
    preset.change(said(_preset), [method, preset], values, api_visibility="private", **QUIET)
    propose.click(said(_proposed), [model, concept], keep, api_name="neighbours")

    @said
    def begin(*asked: Any) -> tuple[str, Any]:
        made = actions.erase(*asked)
        return made.id, gr.Dropdown(_runs(made.run.name), value=made.run.name)

    asked = [model, concept, kind, anchor, keep, method, values, seed, measure]
    start.click(begin, asked, [task, run], api_name="erase")
    keeping.click(said(lambda name: _stopped(actions.cancel(name))), task, None, api_name="cancel")
    discarding.click(said(lambda name: _stopped(actions.cancel(name, True))), task, None, api_name="discard")
    going_on.click(said(lambda name: actions.resume(name).id), task, task, api_name="resume")
    ending.click(said(lambda name: _stopped(actions.force(name))), task, None, api_name="force_stop")
    return watch


def _fields(name: str, preset: str, values: gr.State) -> None:
    """The form of a method; each control writes its own value into `values`."""
    with gr.Row():
        for field in forms.fields(name, preset):
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
            control.change(write, [values, control], values, api_visibility="private", **QUIET)


def _look(task: gr.State, run: gr.Dropdown) -> list[Any]:
    with gr.Row():
        with gr.Column(scale=6, min_width=320):
            about = "0 is the unedited model, 1 the edit as made; nothing is trained again"
            strength = gr.Slider(0, 1.5, value=1.0, step=0.25, label="Strength", elem_id="strength", info=about)
            pictures = gr.HTML(elem_id="pictures")
        with gr.Column(scale=5, min_width=320):
            over = gr.ImageSlider(label="The first shot, before over after", type="pil", height=540, interactive=False)
            scored = gr.HTML(elem_id="scores")
            with gr.Row():
                measure = gr.Button("Measure", min_width=120)
                auto = gr.Button("Find the best strength", min_width=160)
            prompt = gr.Textbox(label="Your own prompt", placeholder="A Cats image in Van Gogh style.")
            with gr.Row(elem_classes="bar"):
                seeds = gr.Textbox("0:2", label="Seeds", min_width=100)
                draw = gr.Button("Draw", min_width=100)
    strength.change(_at_strength, [run, strength], [pictures, over], api_name="before_after", **QUIET)
    begun = said(lambda *asked: actions.look(*asked).id)
    draw.click(begun, [run, prompt, seeds], task, api_name="draw")
    measure.click(said(lambda name: actions.measure(name).id), run, task, api_name="measure")
    auto.click(said(lambda name: actions.strength(name).id), run, task, api_name="best_strength")
    return [pictures, over, scored]


def _attack(task: gr.State, run: gr.Dropdown) -> gr.HTML:
    with gr.Row(elem_classes="bar"):
        name = gr.Dropdown(attack_names(), value="paraphrase", label="Attack", min_width=160)
        concept = gr.Textbox(label="Concept", placeholder="what the run erased", min_width=160)
        budget = gr.Textbox(label="Budget", placeholder="the attack's own", min_width=120, info="Tries per prompt")
        rows = gr.Textbox("20", label="Prompts", min_width=120)
        start = gr.Button("Attack", variant="primary", min_width=120)
    found = gr.HTML(elem_id="attacks")
    start.click(
        said(lambda *asked: actions.attack(*asked).id), [run, name, concept, budget, rows], task, api_name="attack"
    )
    return found


def _compare(run: gr.Dropdown) -> gr.HTML:
    table = gr.HTML(elem_id="compare")
    with gr.Row(elem_classes="bar"):
        other = gr.Dropdown(_runs(), label="Beside the run above", scale=4)
        beside = gr.Button("Side by side", scale=0, min_width=140)
    sides = gr.HTML()
    other.focus(lambda: gr.Dropdown(_runs()), None, other, api_visibility="private", **QUIET)
    beside.click(said(shelf.contrast), [run, other], sides, api_name="contrast")
    return table


def _ledger(task: gr.State, run: gr.Dropdown) -> gr.HTML:
    listed = gr.HTML(elem_id="ledger")
    with gr.Row(elem_classes="bar"):
        number = gr.Textbox(label="Number of the edit", min_width=120)
        off = gr.Button("Take it off, into a new run", min_width=160)
    off.click(said(lambda *asked: actions.take_off(*asked).id), [run, number], task, api_name="take_off")
    return listed


def _export(task: gr.State, run: gr.Dropdown) -> gr.HTML:
    listed = gr.HTML(elem_id="formats")
    with gr.Row(elem_classes="bar"):
        form = gr.Dropdown(list(FORMS), value=FORMS[0], label="Format", min_width=160)
        strength = gr.Number(1.0, label="Strength", minimum=0, maximum=10, min_width=120)
        start = gr.Button("Export", variant="primary", min_width=120)
        fetch = gr.Button("Prepare the download", min_width=160)
    file = gr.File(label="Download", interactive=False, height=110, elem_id="download")
    gr.HTML("<h3>Model card</h3>")
    card = gr.Markdown(elem_id="card")
    start.click(said(lambda *asked: actions.export(*asked).id), [run, form, strength], task, api_name="export")
    fetch.click(said(lambda *asked: (str(actions.packed(*asked)), shelf.card(*asked))), [run, form], [file, card],
                api_name="download")  # fmt: skip
    return listed


def _runs(also: str = "") -> list[tuple[str, str]]:
    known = views.run_names()
    return known if also in ("", *(name for _, name in known)) else [(also, also), *known]


def _results(run: str) -> list[Any]:
    """What the tabs show of a run, in the order of their outputs."""
    return [*_looked(run), results.attacks(run or ""), said(shelf.ledger)(run) if views.has_edit(run) else ""]


def _looked(run: str) -> list[Any]:
    return [*_at_strength(run, 1.0), results.scores(run or "") + results.best_strength(run or "")]


def _at_strength(run: str, strength: float) -> list[Any]:
    return [results.before_after(run or "", strength), results.slider_pair(run or "", strength)]


def _card(method: str, model: str) -> str:
    card = forms.card(method)
    return (
        f'<div class="card"><p>{escape(card["about"])}</p>'
        f"<p><small>{escape(card['paper'])} · needs {escape(card['needs'])}</small></p>"
        f"<p><small>{views.estimate(model, method)}</small></p></div>"
    )


def _preset(method: str, preset: str) -> dict[str, Any]:
    return {field.name: field.value for field in forms.fields(method, preset)}


def _written(name: str, values: dict[str, Any], value: Any) -> dict[str, Any]:
    return {**values, name: value}


def _proposed(model: str, concept: str) -> Any:
    near = actions.neighbours(model, concept)
    return gr.Dropdown(near, value=near[:4])


def _stopped(status: str) -> None:
    gr.Info(f"The task is {status}.")
