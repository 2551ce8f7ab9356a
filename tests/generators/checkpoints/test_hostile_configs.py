"""Configs, indices and headers that were damaged or made to harm: a sentence with the file's name, at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import generators
from erase.errors import BadInput, reading
from generators.checkpoints.tensors import contents, header
from tests.toys.pipelines import patch_json, toy_folder


@pytest.fixture
def toy(tmp_path):
    """A folder of its own to damage."""
    return toy_folder(tmp_path / "toy")


UNET, VAE, TEXT, SCHEDULER = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)
INDEX = "model_index.json"


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (UNET, {"layers_per_block": 10**7}, "layers"),
        (UNET, {"layers_per_block": 10**100}, r"10\^100"),
        (UNET, {"layers_per_block": [5000, 5000]}, "5000 layers"),
        (UNET, {"transformer_layers_per_block": 10**6}, "layers"),
        (UNET, {"sample_size": 10**7}, "sample_size 10000000"),
        (UNET, {"attention_head_dim": 0}, "describes no model"),
        (UNET, {"block_out_channels": "wide"}, "describes no model"),
        (UNET, {"block_out_channels": [10**9, 10**9]}, "block_out_channels 1000000000"),
        (UNET, {"down_block_types": [["DownBlock2D"]]}, "describes no model"),
        (UNET, {"cross_attention_dim": float("nan")}, "nan"),
        (VAE, {"layers_per_block": 10**6}, "describes no model|layers|cannot be read"),
        (VAE, {"latent_channels": {}}, "describes no model"),
        (TEXT, {"num_hidden_layers": 10**7}, "layers"),
        (TEXT, {"num_attention_heads": 0}, "describes no model"),
        (TEXT, {"vocab_size": 10**12}, "vocab_size"),
        (TEXT, {"text_config": [1]}, "text_config"),
        (SCHEDULER, {"num_train_timesteps": 10**12}, "num_train_timesteps"),
        (SCHEDULER, {"beta_start": float("nan")}, "beta_start"),
        (SCHEDULER, {"beta_start": -3.0}, "noise levels|describes no model"),
        (SCHEDULER, {"beta_start": "small"}, "describes no model"),
        (SCHEDULER, {"_class_name": ["PNDMScheduler"]}, "asks for the scheduler"),
        (SCHEDULER, {"_class_name": "DiffusionPipeline"}, "asks for the scheduler"),
        (INDEX, {"_class_name": ["StableDiffusionPipeline"]}, "possible here"),
        (INDEX, {"_class_name": {}}, "possible here"),
    ],
)
def test_numbers_and_types_that_no_model_has(toy: Path, file: str, change: dict[str, Any], said: str) -> None:
    patch_json(toy / file, **change)
    with pytest.raises(BadInput, match=said) as caught:
        generators.load(toy, device="cpu")
    assert str(toy) in str(caught.value)


@pytest.mark.parametrize("file", [UNET, VAE, TEXT, SCHEDULER, INDEX])
@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, "[1]", "nul", "\ufeff{", '{"a": ' + "9" * 6000 + "}"]
)
def test_json_that_is_none(toy: Path, file: str, text: str) -> None:
    (toy / file).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=file):
        generators.load(toy, device="cpu")


def test_keys_that_name_code_are_not_followed(toy: Path) -> None:
    """transformers would fetch kernels, native code, by the name of an attention."""
    patch_json(
        toy / TEXT, _attn_implementation="someone/kernels", attn_implementation="someone/kernels",
        auto_map={"AutoModel": "someone/code--x.Y"},
    )  # fmt: skip
    text = generators.load(toy, device="cpu").network.text
    assert "someone" not in json.dumps(text.config.to_dict(), default=str)
    assert text.config._attn_implementation in ("sdpa", "eager")


def test_schedulers_that_are_saved_with_infinity_load(toy: Path) -> None:
    patch_json(toy / SCHEDULER, _class_name="DPMSolverMultistepScheduler", lambda_min_clipped=-float("inf"))
    assert type(generators.load(toy, device="cpu").scheduler).__name__ == "DPMSolverMultistepScheduler"


@pytest.mark.parametrize(
    "table",
    [
        [],
        {"a": []},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}},
        {"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}},
        {"a": {"dtype": "Z9", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"edit": [1]}},
        {"__metadata__": 3},
    ],
)
def test_headers_that_no_writer_makes(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "x.safetensors"
    text = json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
    with pytest.raises(BadInput, match="x.safetensors"):
        contents(path)


def test_a_million_empty_tensors_are_too_many(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    entry = json.dumps({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
    text = ("{" + ",".join(f'"{number}":{entry}' for number in range(100_001)) + "}").encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(BadInput, match="100001 tensors"):
        header(path)


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64, torch.bool])
def test_weights_of_other_numbers_are_refused(toy: Path, kind: torch.dtype) -> None:
    path = toy / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"conv_in.bias": tensors["conv_in.bias"].to(kind)}, path, metadata={"format": "pt"})
    with pytest.raises(BadInput, match="conv_in.bias holds torch"):
        generators.load(toy, device="cpu")


def test_what_is_not_the_files_fault_passes() -> None:
    for error in (MemoryError(), RuntimeError("CUDA error: x"), OSError(28, "No space left on device")):
        with pytest.raises(type(error)), reading("x", "a model"):
            raise error
    for error in (RecursionError(), KeyError("a"), OverflowError("big"), ZeroDivisionError()):
        with pytest.raises(BadInput, match=r"^x cannot be read as a model \("), reading("x", "a model"):
            raise error
