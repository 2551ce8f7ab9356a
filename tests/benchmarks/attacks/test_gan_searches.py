"""Searches of a GAN's codes: what they lower, how far they may go, and which of their finds they keep."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.attacks.gan import prompt_boundary
from benchmarks.attacks.gan.base import AttackTarget, descend
from benchmarks.attacks.gan.code_inversion import Inversion
from benchmarks.attacks.gan.latent_search import LatentSearch
from benchmarks.attacks.gan.prompt_boundary import PromptBoundary
from erase.concept import Concept
from erase.gan.distillation import drawn_codes, layered, multiscale_l1
from erase.work import drain
from tests.toys.gan import Pixels, ToyGan


@pytest.fixture
def gan() -> ToyGan:
    return ToyGan()


def drawn(gan: ToyGan, codes: Tensor) -> Tensor:
    with torch.no_grad():
        return gan.synthesis(codes)


def target(gan: ToyGan, ways: Sequence[tuple[str, Tensor]] = ()) -> AttackTarget:
    w, scorer = drawn_codes(gan, range(64)), gan.scorer(Concept(name="bright"))
    has = scorer((drawn(gan, layered(gan, w)) / 2 + 0.5).clamp(0, 1)) > 0.5
    with_it, bare = w[has][:4], w[~has][:4]
    images = drawn(gan, layered(gan, with_it))
    return AttackTarget("bright", with_it, images, bare, scorer, lambda: ways, w.mean(0), w.std(0), 0)


def test_a_latent_search_convinces_the_scorer(gan: ToyGan) -> None:
    aim = target(gan)
    codes, _ = drain(LatentSearch(budget=20, lr=0.1).search(gan, aim))
    before, after = (
        aim.scorer((drawn(gan, each) / 2 + 0.5).clamp(0, 1)) for each in (layered(gan, aim.without), codes)
    )
    assert bool((after > before).all()) and float(after.min()) > 0.5 > float(before.max())


def test_an_inversion_comes_nearer_to_the_images_from_before_the_edit(gan: ToyGan) -> None:
    aim = target(gan)
    with torch.no_grad():
        gan.network.get_parameter("synthesis.b8.conv0.bias").add_(0.5)
    codes, _ = drain(Inversion(budget=30, lr=0.05).search(gan, aim))
    before, after = (float(multiscale_l1(drawn(gan, each), aim.images)) for each in (layered(gan, aim.with_it), codes))
    assert after < 0.9 * before


def test_a_descent_moves_one_code_at_first_then_one_a_layer_and_stays_within_three_spreads(gan: ToyGan) -> None:
    aim = target(gan)
    start = layered(gan, aim.without)

    def out(images: Tensor) -> Tensor:
        return -images.mean((1, 2, 3)).sum()

    def layers_differ(codes: Tensor) -> bool:
        return not torch.allclose(codes, codes[:, :1].expand_as(codes), atol=1e-6)

    asked: list[Tensor] = []
    synthesis = gan.synthesis

    def noted(ws: Tensor, *more: object) -> Tensor:
        asked.append(ws.detach())
        return synthesis(ws, *more)  # type: ignore[arg-type]

    gan.synthesis = noted  # type: ignore[method-assign]
    found = drain(descend(gan, start, aim, 1.0, 12, out))
    torch.testing.assert_close(asked[0], start)
    assert [layers_differ(codes) for codes in asked] == 7 * [False] + 5 * [True]
    far = (found - aim.average) / aim.spread
    assert float(far.abs().max()) == pytest.approx(3.0, abs=1e-4)
    assert all(float(((codes - aim.average) / aim.spread).abs().max()) < 3.0001 for codes in asked)


def test_of_all_wordings_and_lengths_the_surest_is_kept(gan: ToyGan) -> None:
    steps = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    ways = [(f"way {number}", step) for number, step in enumerate(steps)]
    aim = target(gan, ways)
    codes, said = drain(PromptBoundary(budget=4).search(gan, aim))
    tried = {}
    for words, step in ways[:4]:  # the fifth is beyond the budget
        for length in (1, 2, 3):
            tried[f"{words}, {length} times"] = layered(gan, aim.without + length * step)
    sure = torch.stack([aim.scorer((drawn(gan, each) / 2 + 0.5).clamp(0, 1)) for each in tried.values()])
    best = sure.argmax(0).tolist()
    assert said == [list(tried)[place] for place in best] and len(set(said)) > 1
    for row, place in enumerate(best):
        torch.testing.assert_close(codes[row], list(tried.values())[place][row])


def test_steps_make_images_more_like_their_wording(gan: ToyGan) -> None:
    w, eye = drawn_codes(gan, range(256)), Pixels()
    found = prompt_boundary.directions(gan, w, "beard", seed=0)
    lacking = eye.texts([f"a face {words}" for words in prompt_boundary.WITHOUT["beard"]]).mean(0)
    with torch.no_grad():
        before = eye.images(gan.synthesis(layered(gan, w)) / 2 + 0.5)
        for words, step in found:
            if "aside" not in words:
                more = eye.images(gan.synthesis(layered(gan, w + step)) / 2 + 0.5) - before
                assert float((more @ (eye.texts([words])[0] - lacking)).mean()) > 0, words
