"""CLIP cosines through open_clip on a tiny folder, and the distance of features."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.metrics.alignment import clip, feature_distance, resized
from erase.errors import BadInput
from tests.toys.pipelines import tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of a few thousand weights, laid out as open_clip's `local-dir:` schema wants it."""
    home = tmp_path_factory.mktemp("clips") / "tiny-clip"
    words = tokenizer()
    words.save_pretrained(home)
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {
            "context_length": 24, "vocab_size": len(words), "width": 32, "heads": 2, "layers": 1,
            "hf_tokenizer_name": "tiny-clip",
        },
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {key: value for key, value in config["text_cfg"].items() if key != "hf_tokenizer_name"}
        network = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], shape)
    seen = {"size": 16, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    (home / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": seen}))
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        home / "open_clip_model.safetensors",
    )
    return home


def test_the_cosine_is_that_of_the_two_towers(folder: Path) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    prompts = ["a cat", "a dog", "a cat", "van gogh"]
    found = clip(str(folder)).cosines(images, prompts)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    words = open_clip.get_tokenizer(f"local-dir:{folder}")
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    with torch.no_grad():
        seen, said = model.encode_image((images - mean) / std), model.encode_text(words(prompts))
    expected = torch.nn.functional.cosine_similarity(seen, said)
    assert found == pytest.approx(expected.numpy(), abs=1e-5)
    assert found.std() > 1e-3  # else the comparison would show nothing


def test_each_image_is_compared_with_its_own_prompt(folder: Path) -> None:
    images = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    judge, prompts = clip(str(folder)), ["a cat", "a dog", "an image"]
    together = judge.cosines(images, prompts)
    alone = torch.cat([judge.cosines(images[i : i + 1], prompts[i : i + 1]) for i in range(3)])
    assert together == pytest.approx(alone.numpy(), abs=1e-6)
    assert judge.cosines(images, prompts[::-1])[0] != pytest.approx(float(together[0]), abs=1e-6)


def test_the_name_and_hash_are_the_folders(folder: Path, tmp_path: Path) -> None:
    one = clip(str(folder))
    assert (one.name, len(one.sha256)) == ("tiny-clip", 64)
    changed = tmp_path / "tiny-clip"
    changed.mkdir()
    for path in folder.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    assert clip(str(changed)).sha256 == one.sha256
    config = changed / "open_clip_config.json"
    config.write_text(config.read_text().replace("0.5", "0.6"))
    assert clip(str(changed)).sha256 != one.sha256


def test_unknown_clips_and_other_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="pocket-clip"):
        clip("pocket-clap")
    with pytest.raises(BadInput, match=r"no open_clip_config\.json"):
        clip(str(tmp_path))


def test_feature_distance_by_hand() -> None:
    before = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    after = torch.tensor([[6.0, 8.0], [0.0, 5.0], [-1.0, 0.0]])
    assert feature_distance(before, after).tolist() == pytest.approx([0.0, 2.0, 4.0], abs=1e-9)


def test_resizing_is_antialiased_and_leaves_the_right_size_alone() -> None:
    stripes = ((torch.arange(256) + 1) % 4 < 2).float().view(1, 1, 1, 256).expand(1, 3, 256, 256)
    assert (resized(stripes, (64, 64)) - 0.5).abs().max() < 0.15
    assert resized(stripes, (256, 256)) is stripes
