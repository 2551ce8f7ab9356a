"""The commands of `studio`. Each is a file with its options and its body; here are their names, in the order of --help.

A file imports torch and what needs it inside its functions, so that --help answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verb:
    """Where a command is (module:function), one line about it, and whether it takes the options for loading a model.

    The function's options are added by the function `<function>_options` beside it, where there is one.
    """

    run: str
    about: str
    loads: bool = False


VERBS = {
    "demo": Verb("demo:demo", "erase a style from the bundled model, judge, draw and export it", loads=True),
    "models": Verb("listings:models", "list the models that come with the studio"),
    "methods": Verb("listings:methods", "list the erasure methods, or explain one with its knobs"),
    "metrics": Verb("listings:metrics", "list what `studio judge` measures"),
    "suites": Verb("listings:suites", "list the prompt suites that models are judged on"),
    "sample": Verb("sample:sample", "draw a contact sheet: a row per prompt, a column per seed", loads=True),
    "look": Verb("look:look", "draw a grid of images at several strengths, each with its verdict", loads=True),
    "latents": Verb("latents:latents", "draw a GAN's images of given seeds, one file each", loads=True),
    "erase": Verb("erase:erase", "erase concepts from a model into a RUN folder", loads=True),
    "resume": Verb("erase:resume", "continue an unfinished RUN; the edit is the same bit by bit", loads=True),
    "reproduce": Verb("erase:reproduce", "repeat a RUN's job and compare the two edits bit by bit", loads=True),
    "runs": Verb("listings:runs", "list the runs below a folder"),
    "cancel": Verb("tasks:cancel", "stop the job that is working on a RUN"),
    "ledger": Verb("ledger:ledger", "list the edits stacked in a RUN, or remove one of them", loads=True),
    "neighbours": Verb("neighbours:neighbours", "list the concepts nearest in meaning to one", loads=True),
    "judge": Verb("judge:judge", "measure a model, or what a RUN's edit did to it", loads=True),
    "serve": Verb("serve:serve", "open the studio as a page in the browser"),
    "strength": Verb(
        "strength:strength",
        "find the strength at which a RUN's edit erases its concept and keeps the others",
        loads=True,
    ),
    "attack": Verb("attack:attack", "try to bring an erased concept back, and count how often that works", loads=True),
    "attacks": Verb("listings:attacks", "list the attacks, or explain one with its knobs"),
    "sweep": Verb("sweep:sweep", "run every method of a TOML file on every concept, and rank them"),
    "report": Verb("report:report", "write a run, a sweep, or a folder of runs as one HTML file"),
    "completion": Verb("completion:completion", "print the script by which a shell completes commands and options"),
    "export": Verb("export:export", "write a RUN's edited model in a format other programs open"),
}
