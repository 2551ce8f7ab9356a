"""The page in Gradio: its frame, what is drawn anew and when. The tabs are in `tabs`; neither holds any logic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.web import actions, api, compare_view, gallery, queue_view, run_view, tabs, task_view
from app.web.tabs import QUIET, report_errors, run_list

TICK = 1.5  # seconds between two looks at the queue
HERE = Path(__file__).parent
CSS = (HERE / "page.css").read_text(encoding="utf-8")
HEAD = '<meta name="robots" content="noindex"><meta name="color-scheme" content="light dark">'
# The address keeps the run, so that a reload or a link returns to it.
REMEMBER = "(run) => { if (run) history.replaceState(null, '', '?run=' + encodeURIComponent(run)); }"
TITLE = "Concept erasure studio"
MOTTO = "Erase a concept, see what else changed, attack the result, export it."
SYSTEM = ["system-ui", "sans-serif"]


def theme() -> gr.themes.Base:
    """Gradio's base in the system's own fonts."""
    mono = ["ui-monospace", "monospace"]
    return gr.themes.Default(primary_hue="teal", neutral_hue="slate", radius_size="md", spacing_size="sm",
                             font=SYSTEM, font_mono=mono).set(
        button_primary_background_fill="#0f766e", button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_dark="#0f766e", button_primary_text_color="#ffffff",
        block_info_text_color="#4b5563", block_info_text_color_dark="#9ca3af",
    )  # fmt: skip


@dataclass(frozen=True)
class Views:
    """What the tabs show: the tabs by name, and the components that a task or another run changes."""

    tabs: dict[str, gr.Tab]
    progress: gr.HTML
    look: list[Any]
    marking: list[Any]
    latents: gr.HTML
    attacks: gr.HTML
    compare: list[Any]
    ledger: gr.HTML
    formats: gr.HTML

    @property
    def of_run(self) -> list[Any]:
        """What shows a run, in the order of `_results`."""
        return [*self.look, self.attacks, self.ledger, self.formats]


def page() -> gr.Blocks:
    """All of it."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        with gr.Row(elem_id="head"):
            gr.HTML(f"<header><h1>{TITLE}</h1><p>{MOTTO}</p></header>")
            status = gr.HTML(queue_view.header(), elem_id="standing")
        task = gr.State("")
        # Custom values: a run that is only just beginning is chosen before it has a folder.
        run = gr.Dropdown(
            run_list(), label="Run", elem_id="run", allow_custom_value=True,
            info="What Before / after, Attack, Ledger and Export show",
        )  # fmt: skip
        views = _tabs(task, run)
        with gr.Accordion("Queue and history", open=True):
            button = (HERE / "queue.js").read_text(encoding="utf-8")
            queued = gr.HTML(queue_view.tasks(), elem_id="queue", js_on_load=button)
        _follow_task(task, run, views, [views.progress, queued, status])
        queued.select(report_errors(_press), task, [task, views.progress, queued, status], **QUIET)
        blocks.load(_restore, None, [run, task, views.progress, queued, status], **QUIET)
        api.register()  # before the handlers below, which would take the names of endpoints
        _follow_run(run, views)
    return blocks


def _tabs(task: gr.State, run: gr.Dropdown) -> Views:
    with gr.Tabs() as all_tabs:
        with gr.Tab("Erase", id="erase"):
            progress = tabs.erase(task, run)
        with gr.Tab("Before / after", id="look") as look_tab:
            look = tabs.look(task, run)
        with gr.Tab("GAN gallery", id="gallery") as gallery_tab:
            marking, latents = tabs.mark(task, run, all_tabs)
        with gr.Tab("Attack", id="attack") as attack_tab:
            attacks = tabs.attack(task, run)
        with gr.Tab("Compare", id="compare") as compare_tab:
            compare = tabs.compare(run)
        with gr.Tab("Ledger", id="ledger") as ledger_tab:
            ledger = tabs.ledger(task, run)
        with gr.Tab("Export", id="export") as export_tab:
            formats = tabs.export(task, run)
    named = {
        "look": look_tab, "gallery": gallery_tab, "attack": attack_tab, "compare": compare_tab, "ledger": ledger_tab,
        "export": export_tab,
    }  # fmt: skip
    return Views(named, progress, look, marking, latents, attacks, compare, ledger, formats)


def _follow_task(task: gr.State, run: gr.Dropdown, views: Views, always: list[Any]) -> None:
    """Every TICK: progress, queue and status; when the task has just ended, also everything that shows its results."""
    drawn = gr.State("")  # the end that has been shown

    @report_errors
    def refresh(task_id: str, run_name: str, shown: str, *marked: Any) -> tuple[Any, ...]:
        end = task_view.ended(task_id)
        results = [*_results(run_name), gallery.latents(*marked)] if end and end != shown else None
        rest = results or [gr.skip()] * (len(views.of_run) + 1)
        return task_view.progress(task_id), queue_view.tasks(), queue_view.header(), end, *rest

    outputs = [*always, drawn, *views.of_run, views.latents]
    gr.Timer(TICK).tick(refresh, [task, run, drawn, *views.marking], outputs, **QUIET)


def _follow_run(run: gr.Dropdown, views: Views) -> None:
    """Another run, or another tab: show what there is now."""
    run.focus(lambda name: gr.Dropdown(run_list(name or "")), run, run, **QUIET)
    run.change(None, run, None, js=REMEMBER)
    run.change(report_errors(_results), run, views.of_run, **QUIET)
    for name, view, shown in (
        ("look", tabs.looked, views.look), ("attack", run_view.attacks, [views.attacks]),
        ("ledger", run_view.ledger, [views.ledger]), ("export", run_view.formats, [views.formats]),
    ):  # fmt: skip
        views.tabs[name].select(report_errors(view), run, shown, **QUIET)
    views.tabs["gallery"].select(report_errors(gallery.latents), views.marking, views.latents, **QUIET)
    compared = report_errors(lambda: (compare_view.compare(), gr.Dropdown(run_list())))
    views.tabs["compare"].select(compared, None, views.compare, **QUIET)


def _restore(request: gr.Request) -> tuple[Any, ...]:
    """Whoever comes back finds the run of the address, or the running task."""
    asked = request.query_params.get("run") or ""
    known = [name for _, name in task_view.run_names()]
    chosen = asked if asked in known else next(iter(known), None)
    task = task_view.task_of(asked) if asked in known else task_view.current()
    return gr.Dropdown(run_list(), value=chosen), task, *_status(task)


def _press(task: str, event: gr.EventData) -> tuple[Any, ...]:
    """A button of the queue was pressed; the one that says `watch` shows its task above."""
    if event.what == "watch":
        task = event.task
    else:
        actions.do(event.what, event.task)
    return task, *_status(task)


def _status(task: str) -> tuple[str, str, str]:
    return task_view.progress(task), queue_view.tasks(), queue_view.header()


def _results(run: str) -> list[Any]:
    """What the tabs show of a run, in the order of `Views.of_run`."""
    run = run or ""
    return [*tabs.looked(run), run_view.attacks(run), run_view.ledger(run), run_view.formats(run)]
