"""Valid small files of every reader, changed in ways that nobody foresaw: python -m tests.contract.hostile

Each reader may succeed or say BadInput. Memory and CPU time are limited for the whole process, so that a file which
asks for more ends it. The exit status is 1 when any reader did anything else.
"""

from __future__ import annotations

import copy
import json
import resource
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import generators
from app.runs.run import open_run
from benchmarks.probes.vit import weights_alone
from benchmarks.suites.gan_suite import SUITES as GAN_SUITES
from benchmarks.suites.gan_suite import gan_suite
from benchmarks.suites.prompts import file_rows
from benchmarks.suites.suite import SUITES, load_suite
from benchmarks.sweeps.sweep import read_sweep
from erase.edit import Edit
from erase.errors import BadInput
from erase.gan.feedback import clicks
from erase.low_rank import DOWN, UP
from generators.checkpoints import text_encoder_edit
from generators.stylegan2.io import checkpoint, layouts
from generators.stylegan2.network import Shape, StyleGenerator
from tests.generators import compvis
from tests.generators.stylegan2 import nvlabs
from tests.toys.pipelines import pipeline, toy_folder

GIB = 2**30
MEMORY, CPU = 6 * GIB, 90  # beyond what libraries take when they are imported; seconds, of which the examples need 20
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 10**7, 10**12, 10**100, 1e308, float("nan"), float("inf"), "", "x", "../../x", [], [1],
    {}, {"a": 1}, [[]], "a" * 1000, [0] * 100,
)  # fmt: skip
SHAPE = Shape(resolution=8, z_dim=3, w_dim=3, mapping_layers=1, widths={4: 4, 8: 4})


@dataclass(frozen=True)
class Reader:
    """A reader, the valid file it is given, how many changed ones it has to bear, and whether they are JSON."""

    read: Callable[[Path], Any]
    path: Path
    examples: int
    json: bool = False
    folder: Path | None = None  # what is read, where the file is only a part of it


def bytes_of(data: st.DataObject, valid: bytes) -> bytes:
    """The file with a few pieces cut out, repeated, moved or replaced."""
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, max(len(valid) - 1, 0)))
        stop = min(start + data.draw(st.integers(0, 40)), len(valid))
        new = data.draw(st.sampled_from([b"", valid[start:stop] * 30, b"\xff" * (stop - start), b"2\x86" * 40])
                        | st.binary(max_size=8))  # fmt: skip
        valid = valid[:start] + new + valid[stop:]
        if data.draw(st.booleans()):
            valid = valid[: data.draw(st.integers(0, len(valid)))]
    return valid


def json_of(data: st.DataObject, valid: Any) -> Any:
    """The value with one of its parts replaced, removed or wrapped."""
    value = copy.deepcopy(valid)
    places = list(_places(value))
    if not places:
        return data.draw(st.sampled_from(ODD))
    holder, key = data.draw(st.sampled_from(places))
    match data.draw(st.sampled_from(["replace", "replace", "remove", "wrap"])):
        case "replace":
            holder[key] = data.draw(st.sampled_from(ODD))
        case "remove":
            del holder[key]
        case "wrap":
            holder[key] = [holder[key]]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


def header_of(data: st.DataObject, valid: bytes) -> bytes:
    """A safetensors file whose header, or a JSON text in its metadata, has another value somewhere."""
    length = int.from_bytes(valid[:8], "little")
    table = json.loads(valid[8 : 8 + length])
    texts = table.get("__metadata__", {})
    inner = [key for key, text in texts.items() if text.startswith("{")]
    if inner and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(inner))
        texts[key] = json.dumps(json_of(data, json.loads(texts[key])))
    else:
        table = json_of(data, table)
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + valid[8 + length :]


def changed(data: st.DataObject, reader: Reader, valid: bytes) -> bytes:
    """What the reader is given instead of its valid file."""
    if reader.json and data.draw(st.integers(0, 3)):
        return json.dumps(json_of(data, json.loads(valid))).encode()
    if reader.path.suffix == ".safetensors" and data.draw(st.booleans()):
        return header_of(data, valid)
    return bytes_of(data, valid)


def failure(reader: Reader) -> str | None:
    """What a reader did that is neither success nor BadInput; None if it bore every example."""
    valid = reader.path.read_bytes()
    reader.read(reader.folder or reader.path)  # the file is valid before it is changed

    @settings(
        max_examples=reader.examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def bears(data: st.DataObject) -> None:
        reader.path.write_bytes(changed(data, reader, valid))
        try:
            reader.read(reader.folder or reader.path)
        except BadInput as error:
            assert str(error).strip()

    try:
        bears()
        return None
    except BaseException:
        return traceback.format_exc()
    finally:
        reader.path.write_bytes(valid)


def readers(home: Path) -> Iterator[Reader]:
    """Every reader of files that somebody else may have made, with a valid file each."""
    folder = toy_folder(home / "toy")
    for name in ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
                 "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"):  # fmt: skip
        yield Reader(lambda path: generators.load(path, device="cpu"), folder / name, 12, True, folder)
    single = compvis.single_file(home / "single.safetensors", pipeline("sd1"), "sd1", {"modelspec.resolution": "16x16"})
    yield Reader(lambda path: generators.load(path, device="cpu", config=folder), single, 15)
    yield Reader(Edit.load, _edit(home / "edit.safetensors"), 70)
    yield Reader(text_encoder_edit.read, _lora(home / "lora.safetensors"), 70)
    yield from _gans(home)
    torch.save({"model_state_dict": {"a": torch.zeros(2)}, "sizes": (1, (2, 3))}, home / "style50.pth")
    yield Reader(weights_alone, home / "style50.pth", 50)
    yield from _texts(home)


def _edit(path: Path) -> Path:
    about = {"method": "uce", "concepts": [{"name": "Cats"}], "parents": [{"hash": "0", "strength": 1.0, "about": {}}]}
    tensors = {"unet.a.weight": torch.ones(3, 3), f"unet.b{UP}": torch.ones(4, 1), f"unet.b{DOWN}": torch.ones(1, 4)}
    save_file(tensors, path, {"edit": json.dumps({"format": 2, "about": about})})
    return path


def _lora(path: Path) -> Path:
    header = text_encoder_edit.lora_header(Edit({}, {"concepts": [{"name": "Cats"}]}), {"lora_unet_a": "unet.a.weight"})
    tensors = {"lora_unet_a.lora_up.weight": torch.ones(4, 1), "lora_unet_a.lora_down.weight": torch.ones(1, 4)}
    save_file(tensors | {"lora_unet_a.alpha": torch.tensor(1.0)}, path, header)
    return path


def _gans(home: Path) -> Iterator[Reader]:
    generator = StyleGenerator(SHAPE).requires_grad_(False).eval()
    made = checkpoint.Checkpoint(generator, None, {"name": "toy"})
    (ours,) = checkpoint.write_folder(made, home / "gan")
    yield Reader(checkpoint.read, ours, 40, folder=home / "gan")
    yield Reader(checkpoint.read, checkpoint.write_nvlabs(made, home / "nvlabs.safetensors"), 60)
    checkpoint.write_rosinality(made, home / "gan.pt")
    yield Reader(checkpoint.read, home / "gan.pt", 50)
    tensors = layouts.with_filters(layouts.unfolded(generator), "generator")
    nvlabs.write(home / "gan.pkl", {"G_ema": nvlabs.Persistent("Generator", tensors, "")})
    yield Reader(checkpoint.read, home / "gan.pkl", 50)


def _texts(home: Path) -> Iterator[Reader]:
    (home / "suite.toml").write_bytes((SUITES / "pocket-canvas.toml").read_bytes())
    yield Reader(load_suite, home / "suite.toml", 40)
    (home / "gan.toml").write_bytes(next(GAN_SUITES.glob("*.toml")).read_bytes())
    yield Reader(gan_suite, home / "gan.toml", 40)
    (home / "sweep.toml").write_text('[[concept]]\nname = "Cats"\n[[method]]\nname = "uce"\n')
    yield Reader(read_sweep, home / "sweep.toml", 40)
    run = home / "run"
    run.mkdir()
    job = {"model": "pocket-sd", "concepts": [{"name": "Cats"}], "method": "uce", "knobs": {"push": 1.0}, "seed": 0}
    (run / "job.json").write_text(json.dumps({"job": job}))
    yield Reader(lambda folder: open_run(folder).job, run / "job.json", 40, True, run)
    (home / "marks.json").write_text(json.dumps({"yes": list(range(9)), "no": list(range(10, 19))}))
    yield Reader(clicks, home / "marks.json", 40, True)
    (home / "p.csv").write_text('case_number,prompt,evaluation_seed\n1,"a cat, a dog",7\n2,b,3\n')
    yield Reader(file_rows, home / "p.csv", 70)
    line = {"case": "1", "adversarial": "a", "drawn_seed": 3, "guidance": 7.5, "broken": True, "pre": False}
    (home / "p.jsonl").write_text(f'{{"job": {{}}}}\n{json.dumps(line)}\n')
    yield Reader(file_rows, home / "p.jsonl", 50)


def main() -> int:
    """Tries every reader and prints what broke."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + _address_space(), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 1))
    broken = 0
    with tempfile.TemporaryDirectory() as home:
        for reader in readers(Path(home)):
            if (said := failure(reader)) is not None:
                print(f"{reader.path.relative_to(home)}\n{said}", file=sys.stderr)
                broken += 1
    return 1 if broken else 0


def _address_space() -> int:
    """Bytes that the process has mapped already; libraries of CUDA alone map many GiB."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
