"""Pocket Faces: what a label says is what is drawn and what is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from generators.pocket.faces import draw, words
from generators.pocket.faces.codes import STARTS, Z_DIM, face_of, halved
from generators.pocket.faces.factors import factors
from generators.pocket.faces.probe import FaceProbe, load_face_probe, read_off, shaken
from generators.stylegan2.io import files
from generators.stylegan2.network import latents


def test_faces_are_fixed_by_their_number() -> None:
    picture, labels = draw.face(5)
    again, same = draw.face(5)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, again)
    assert labels == same
    assert tuple(labels) == draw.ATTRIBUTES
    for other in (draw.face(6), draw.face(5, held_out=True)):
        assert not np.array_equal(picture, other[0])


def test_rates_are_as_documented_and_only_baldness_depends_on_others() -> None:
    drawn = [draw._labels(draw.Thrown(np.random.default_rng(i)))[0] for i in range(8000)]
    table = np.array([[labels[attribute] for attribute in draw.ATTRIBUTES] for labels in drawn], float)
    assert np.allclose(table.mean(0), [draw.RATES[a] for a in draw.ATTRIBUTES], atol=0.02)
    related = np.abs(np.corrcoef(table.T))
    bald = draw.ATTRIBUTES.index("bald")
    expected = np.eye(6, dtype=bool)
    for other in ("hat", "blond hair"):
        expected[bald, draw.ATTRIBUTES.index(other)] = expected[draw.ATTRIBUTES.index(other), bald] = True
    assert (related[expected] > 0.3).all()
    assert (related[~expected] < 0.05).all()


@pytest.mark.parametrize("attribute", draw.ATTRIBUTES)
def test_an_attribute_changes_enough_pixels_to_be_seen(attribute: str) -> None:
    """Mean faces with and without it differ where it is drawn far more than two random halves do."""
    drawn = [draw.face(i) for i in range(160)]
    wearing = np.array([labels[attribute] for _, labels in drawn])
    pictures = np.stack([picture for picture, _ in drawn]).astype(float)
    rng = np.random.default_rng(0)

    def gap(mask: np.ndarray) -> float:
        difference = np.abs(pictures[mask].mean(0) - pictures[~mask].mean(0)).mean(2)
        return float(np.sort(difference.ravel())[-120:].mean())

    chance = [gap(rng.permutation(wearing)) for _ in range(20)]
    assert gap(wearing) > max(chance)


def test_captions_never_claim_what_is_absent() -> None:
    rng = np.random.default_rng(0)
    nothing = dict.fromkeys(draw.ATTRIBUTES, False)
    denials = sorted((p for row in words.WITHOUT.values() for p in row), key=len, reverse=True)
    claims = {p for table in (words.BEFORE, words.WITH, words.CLAUSE) for row in table.values() for p in row}
    captions = [draw.face_caption(nothing, rng) for _ in range(300)]
    for caption in captions:
        rest = caption
        for denial in denials:
            rest = rest.replace(denial, "")
        assert not any(claim in rest for claim in claims), caption
    assert "" in captions
    assert len(set(captions)) > 60


def test_captions_say_what_is_present_in_known_words() -> None:
    rng = np.random.default_rng(1)
    everything = dict.fromkeys(draw.ATTRIBUTES, True) | {"bald": False}
    captions = [draw.face_caption(everything, rng) for _ in range(300)]
    said = {word.strip(",") for caption in captions for word in caption.split()}
    prompted = {
        word.strip(",") for pairs in draw.PROMPTS.values() for pair in pairs for p in pair for word in p.split()
    }
    assert said | prompted <= set(draw.words())
    assert {"eyeglasses", "glasses", "spectacles", "cap", "grin", "beard", "blonde", "bearded"} <= said
    assert set(draw.PROMPTS) == set(draw.ATTRIBUTES)


def test_probes_are_two_and_come_back_from_disk(tmp_path) -> None:
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    modules = []
    for kind in ("eye", "judge"):
        probe = FaceProbe(kind).eval()
        path = tmp_path / f"{kind}.safetensors"
        halved = {key: value.half() for key, value in probe.state_dict().items()}
        files.write(path, halved, {"family": "face-probe", "kind": kind, "attributes": draw.ATTRIBUTES})
        assert path.stat().st_size < 1.5e6
        loaded = load_face_probe(path)
        assert loaded.attributes == draw.ATTRIBUTES
        torch.testing.assert_close(read_off(loaded, pictures)[0], read_off(probe, pictures)[0], atol=0.01, rtol=0.01)
        modules.append({type(module).__name__ for module in probe.modules()})
    assert modules[0] != modules[1]
    files.write(tmp_path / "other.safetensors", halved, {"family": "stylegan2"})
    with pytest.raises(ValueError, match="not a face probe"):
        load_face_probe(tmp_path / "other.safetensors")


def test_shaking_keeps_pictures_pictures() -> None:
    images = torch.stack([torch.from_numpy(draw.face(i)[0]).permute(2, 0, 1) for i in range(4)]).float() / 255
    shaken_images = shaken(images, torch.Generator().manual_seed(0))
    assert shaken_images.shape == images.shape
    assert shaken_images.min() >= 0
    assert shaken_images.max() <= 1
    assert 0.01 < (shaken_images - images).abs().mean() < 0.35


def test_a_code_stands_for_a_face_of_the_data() -> None:
    assert np.bincount(halved(torch.randn(9000, 4, generator=torch.Generator().manual_seed(0)), 10)).min() > 800
    codes = latents(range(3000), Z_DIM)
    said = factors(codes)
    glasses, beard, smile, hat, hair, blond = (said[:, column] > 0 for column in range(6))
    shown = torch.stack([glasses, hat, beard, ~hair & ~hat, smile, blond], 1)
    rates = torch.tensor([draw.RATES[name] for name in draw.ATTRIBUTES])
    torch.testing.assert_close(shown.float().mean(0), rates, atol=0.03, rtol=0)
    for code, row in zip(codes[:40], shown, strict=False):
        assert list(face_of(code.numpy())[1].values()) == row.tolist()


def test_equal_factors_are_equal_pictures() -> None:
    one = latents([7], Z_DIM)
    other = one.clone()
    other[:, -20:] = 5.0  # coordinates that decide on nothing
    assert torch.equal(factors(one), factors(other))
    assert np.array_equal(face_of(one[0].numpy())[0], face_of(other[0].numpy())[0])
    bare = latents(range(40), Z_DIM)
    hatless = bare[factors(bare)[:, 3] < 0][:1]
    assert torch.equal(factors(hatless), factors(_with(hatless, "hat colour", 2.0)))
    assert not torch.equal(factors(hatless), factors(_with(hatless, "eyeglasses", float(factors(hatless)[0, 0]) * 3.0)))


def _with(code: torch.Tensor, part: str, value: float) -> torch.Tensor:
    changed = code.clone()
    changed[:, STARTS[part]] = value
    return changed
