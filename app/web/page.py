"""The page in Gradio: its frame, what is drawn anew and when. The tabs are in `tabs`; neither holds any logic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.web import actions, api, gallery, queue_view, run_view, shelf, tabs, task_view
from app.web.tabs import QUIET, run_list, said

TICK = 1.5  # seconds between two looks at the queue
HERE = Path(__file__).parent
CSS = (HERE / "page.css").read_text(encoding="utf-8")
HEAD = '<meta name="robots" content="noindex"><meta name="color-scheme" content="light dark">'
# The address keeps the run, so that a reload or a link returns to it.
REMEMBER = "(run) => { if (run) history.replaceState(null, '', '?run=' + encodeURIComponent(run)); }"
TITLE = "Concept erasure studio"
MOTTO = "Erase a concept, see what else went, attack it, carry it away."
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


def page() -> gr.Blocks:
    """All of it."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        with gr.Row(elem_id="head"):
            gr.HTML(f"<header><h1>{TITLE}</h1><p>{MOTTO}</p></header>")
            standing = gr.HTML(queue_view.header(), elem_id="standing")
        task, drawn = gr.State(""), gr.State("")
        run = gr.Dropdown(
            run_list(), label="Run", elem_id="run", info="What Before / after, Attack, Ledger and Export show"
        )
        with gr.Tabs() as all_tabs:
            with gr.Tab("Erase", id="erase"):
                watch = tabs.erase(task, run)
            with gr.Tab("Before / after", id="look") as look_tab:
                look = tabs.look(task, run)
            with gr.Tab("GAN gallery", id="gallery") as gallery_tab:
                marking, latents = tabs.mark(task, run, all_tabs)
            with gr.Tab("Attack", id="attack") as attack_tab:
                attacked = tabs.attack(task, run)
            with gr.Tab("Compare", id="compare") as compare_tab:
                compared = tabs.compare(run)
            with gr.Tab("Ledger", id="ledger") as ledger_tab:
                applied = tabs.ledger(task, run)
            with gr.Tab("Export", id="export") as export_tab:
                carried = tabs.export(task, run)
        with gr.Accordion("Queue and history", open=True):
            queued = gr.HTML(
                queue_view.tasks(), elem_id="queue", js_on_load=(HERE / "queue.js").read_text(encoding="utf-8")
            )

        @said
        def look_again(task_id: str, run_name: str, shown: str, *marked: Any) -> tuple[Any, ...]:
            """Progress and queue; when the task has just ended, also everything that shows what it made."""
            ended = task_view.ended(task_id)
            fresh = ended and ended != shown
            news = [*_results(run_name), gallery.latents(*marked)] if fresh else [gr.skip()] * 7
            return task_view.progress(task_id), queue_view.tasks(), queue_view.header(), ended, *news

        shown = [watch, queued, standing, drawn, *look, attacked, applied, carried, latents]
        gr.Timer(TICK).tick(look_again, [task, run, drawn, *marking], shown, **QUIET)

        def opened(request: gr.Request) -> tuple[Any, ...]:
            """Whoever comes back finds the run of the address, or what is at work."""
            asked = request.query_params.get("run") or ""
            known = [name for _, name in task_view.run_names()]
            chosen = asked if asked in known else next(iter(known), None)
            found = task_view.task_of(asked) if asked in known else task_view.current()
            return (
                gr.Dropdown(run_list(), value=chosen),
                found,
                task_view.progress(found),
                queue_view.tasks(),
                queue_view.header(),
            )

        @said
        def done(now: str, event: gr.EventData) -> tuple[Any, ...]:
            """A button of the queue was pressed; the one that says `watch` shows its task above."""
            chosen = event.task if event.what == "watch" else now
            if event.what != "watch":
                actions.do(event.what, event.task)
            return chosen, task_view.progress(chosen), queue_view.tasks(), queue_view.header()

        blocks.load(opened, None, [run, task, watch, queued, standing], **QUIET)
        queued.select(done, task, [task, watch, queued, standing], **QUIET)
        api.register()
        run.focus(lambda: gr.Dropdown(run_list()), None, run, **QUIET)
        run.change(None, run, None, js=REMEMBER)
        run.change(said(_results), run, [*look, attacked, applied, carried], **QUIET)
        for tab, part, view in (
            (look_tab, look, said(tabs.looked)), (attack_tab, [attacked], said(run_view.attacks)),
            (ledger_tab, [applied], said(shelf.ledger)), (export_tab, [carried], said(shelf.formats)),
        ):  # fmt: skip
            tab.select(view, run, part, **QUIET)
        gallery_tab.select(said(gallery.latents), marking, latents, **QUIET)
        compare_tab.select(said(lambda: (shelf.compare(), gr.Dropdown(run_list()))), None, compared, **QUIET)
    return blocks


def _results(run: str) -> list[Any]:
    """What the tabs show of a run, in the order of their outputs."""
    there = task_view.has_edit(run)
    return [
        *tabs.looked(run), run_view.attacks(run or ""), shelf.ledger(run) if there else shelf.ledger(""),
        shelf.formats(run) if there else shelf.formats(""),
    ]  # fmt: skip
