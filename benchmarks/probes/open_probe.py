"""Opens a probe by name, file or suite: the one module that knows every kind of probe."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from benchmarks.probes import clip, nudenet, vit
from benchmarks.probes.base import Probe
from benchmarks.probes.canvas import CanvasProbe
from benchmarks.suites.suite import Suite
from erase.errors import BadInput, nearest, plain
from generators.assets import assets

# Name → file under the bundled assets.
BUNDLED = {"pocket-judge": "pocket-probes/judge.safetensors", "pocket-eye": "pocket-probes/eye.safetensors"}


# What the UnlearnCanvas suites name until somebody says where the classifiers are.
UNGIVEN = "unlearncanvas"


def probe_of(suite: Suite, device: str = "cpu") -> Probe:
    """Who reads a suite's pictures: a CLIP with its words, NudeNet, UnlearnCanvas' classifiers, or a probe by name."""

    if suite.probe.startswith(clip.PREFIX):
        return clip.zero_shot(suite.probe, suite, device)
    if suite.probe.partition(":")[0] == nudenet.PREFIX:
        return nudenet.nude_probe(suite.probe, suite)
    if suite.probe == UNGIVEN:
        raise BadInput(
            f"Suite {suite.name} is read by UnlearnCanvas' own classifiers, which cannot be shipped: give the folder "
            f"of {' and '.join(vit.FILES.values())} as --probe DIR, or as `probe` in a suite or sweep file."
        )
    if Path(suite.probe).is_dir():
        return vit.canvas_classifiers(Path(suite.probe), suite.styles, suite.objects, device)
    return open_probe(suite.probe, device)


def open_probe(name: str, device: str = "cpu") -> Probe:
    """The bundled probe of that name, or the one in that file. BadInput for an unknown name or another kind of file."""
    paths = {plain(known): (known, assets() / file) for known, file in BUNDLED.items()}
    known, path = paths.get(plain(name), (Path(name).stem, Path(name)))
    if not path.is_file():
        if plain(name) in paths:
            raise BadInput(f"The bundled probe {known} is missing: there is no {path}; install the program again.")
        raise nearest(name, BUNDLED, "probe")
    return _opened(known, path, path.stat().st_mtime_ns, device)


@lru_cache(maxsize=4)
def _opened(name: str, path: Path, changed: int, device: str) -> Probe:
    """The probe in a file, read once per file and time of change: two assets folders may hold probes of one name."""
    # Imported here: the pocket networks are one kind of probe, and the protocol needs none of them.
    from generators.pocket.canvas.probe import load_probe

    return CanvasProbe(name, load_probe(path), hashlib.sha256(path.read_bytes()).hexdigest(), device)
