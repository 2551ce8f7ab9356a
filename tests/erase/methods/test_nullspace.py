"""The held solution against other forms of the same problem, its guarantees, and what it does to real readers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from erase.closed_form.gather import Gathered
from erase.closed_form.subspace import centres, free_share, gram, held_change, outside, unused
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.methods.nullspace import NullSpace
from erase.methods.uce import change
from erase.request import Request, run_method
from erase.work import drain
from tests.toys.denoiser import Toy

D = 16
EYE = torch.eye(D, dtype=torch.float64)


def free(R: Tensor, V: Tensor, hold: float = 1.0) -> Tensor:
    """Q [code q]: at right angles to V, hardly used by R."""
    B = outside(V)
    return B @ unused(gram(R @ B), hold)


def rows(n: int, seed: int, d: int = D) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def held() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """C, A [3 code] to move, R [6 code] to keep, V [2 code] that every image reads."""
    return rows(3, 1), rows(3, 2), rows(6, 3), rows(2, 4)


def test_three_ways_to_write_one_solution(held: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    C, A, R, V = held
    beta = 0.7
    Q = free(R, V)
    P = Q @ Q.T
    small = (A - C).T @ torch.linalg.solve(C @ P @ C.T + beta * torch.eye(3, dtype=C.dtype), C @ P)
    large = (A - C).T @ C @ Q @ torch.linalg.solve(Q.T @ C.T @ C @ Q + beta * torch.eye(Q.shape[1], dtype=C.dtype), Q.T)
    # Lagrange's form: stationary under ΔN = 0 for N, a basis of everything that is held.
    N = torch.linalg.qr(torch.cat([R, V]).T).Q
    zero = torch.zeros(N.shape[1], N.shape[1], dtype=C.dtype)
    system = torch.cat([torch.cat([C.T @ C + beta * EYE, N], 1), torch.cat([N.T, zero], 1)])
    right = torch.cat([C.T @ (A - C), torch.zeros(N.shape[1], D, dtype=C.dtype)])
    lagrange = torch.linalg.solve(system, right)[:D].T
    for other in (small, large, lagrange):
        assert (held_change(C, A, Q, beta) - other).abs().max() < 1e-10
    many = rows(20, 5)  # more rows than dimensions: solved the other way round
    goals = rows(20, 6)
    direct = (goals - many).T @ torch.linalg.solve(many @ P @ many.T + beta * torch.eye(20, dtype=C.dtype), many @ P)
    assert (held_change(many, goals, Q, beta) - direct).abs().max() < 1e-10


def test_stationary_point_of_the_objective_for_any_reader(held: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    C, A, R, V = held
    Q, W, beta = free(R, V), rows(24, 7), 0.7

    def gradient(E: Tensor) -> Tensor:
        E = E.clone().requires_grad_()
        step = E @ Q.T
        loss = (W @ (EYE + step) @ C.T - W @ A.T).square().sum() + beta * (W @ step).square().sum()
        return torch.autograd.grad(loss, E)[0]

    assert gradient(held_change(C, A, Q, beta) @ Q).abs().max() < 1e-9
    assert gradient(torch.zeros(D, Q.shape[1], dtype=C.dtype)).abs().max() > 1  # doing nothing is no solution


def test_what_is_held_stays_and_the_rest_is_bounded(held: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    C, A, R, V = held
    full = held_change(C, A, free(R, V), 0.1)
    assert (R @ full.T).abs().max() < 1e-10 and (V @ full.T).abs().max() < 1e-10
    assert torch.linalg.matrix_rank(full) == len(C) and (C @ full.T).norm() > 0.1
    crowd = rows(40, 8) * torch.logspace(0, -2, D, dtype=torch.float64)  # more kept rows than dimensions, some weak
    for hold in (0.9, 0.99, 0.999):
        S = gram(crowd)
        Q = unused(S, hold)
        loose = held_change(C, A, Q, 0.1)
        moved = (crowd @ loose.T).square().sum(1).mean()
        assert 0 < moved <= torch.linalg.matrix_norm(loose, 2) ** 2 * (1 - hold) * S.trace()
        strongest = torch.linalg.eigh(S).eigenvectors[:, Q.shape[1] :]
        assert (loose @ strongest).abs().max() < 1e-10
        energies = torch.linalg.eigvalsh(S)
        assert (
            energies[Q.shape[1] + 1 :].sum() < hold * S.trace() <= energies[Q.shape[1] :].sum()
        )  # no more than needed


def test_the_share_that_may_change_shrinks_with_hold() -> None:
    S = gram(rows(40, 8) * torch.logspace(0, -2, D, dtype=torch.float64))
    sizes = [unused(S, hold).shape[1] for hold in (0.0, 0.5, 0.9, 0.999, 1.0)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == D and sizes[-1] == 0
    assert unused(gram(rows(0, 1)), 0.99).shape == (D, D)  # nothing kept: everything is free
    values = torch.linalg.eigvalsh(S)
    assert unused(S, 0.5, "speed").shape[1] == int((values < 0.1).sum())


def test_one_concept_moves_by_exactly_its_fraction(held: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    C, A, R, V = held
    c, a = C[:1], A[:1]
    Q = free(R, V)
    rho, beta = float(free_share(c, Q, EYE)), 3.0
    size = rho * float(c.square().sum())
    fraction = size / (size + beta)
    moved = c @ (EYE + held_change(c, a, Q, beta)).T
    torch.testing.assert_close(moved, c + fraction * (a - c), rtol=0, atol=1e-12)
    assert 0.05 < fraction < 0.95
    W = rows(24, 9)
    all_the_way = W @ (EYE + held_change(C, A, Q, 0.0))
    assert (all_the_way @ C.T - W @ A.T).abs().max() < 1e-9


def test_uce_with_a_growing_hold_approaches_it(held: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    C, A, R, V = held
    kept = torch.cat([R, V])
    limit = held_change(C, A, free(R, V), 0.5)

    def apart(h: float) -> float:
        hold = torch.full((len(kept),), h, dtype=torch.float64)
        return float((change(C, A, kept, e=1.0, h=hold, damping=0.5) - limit).norm())

    gaps = [apart(h) for h in (1e2, 1e4, 1e6)]
    assert gaps[0] / gaps[1] == pytest.approx(100, rel=0.1) and gaps[1] / gaps[2] == pytest.approx(100, rel=0.1)


def test_an_anchor_of_kept_words_never_amplifies(held: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    C, A, R, V = held
    Q = free(R, V)
    kept = C - C @ Q @ Q.T
    for beta in (0.0, 0.3, 5.0):
        after = EYE + held_change(C, kept, Q, beta)
        assert (after - after.T).abs().max() < 1e-12
        spectrum = torch.linalg.eigvalsh(after)
        assert spectrum.min() > -1e-12 and spectrum.max() < 1 + 1e-12
        assert (after @ after - after).abs().max() < 1e-12 or beta > 0
    given = torch.linalg.matrix_norm(EYE + held_change(C, 3 * A, Q, 0.1), 2)
    assert given > 1.5  # a given anchor may, so the bound above says something


def test_order_does_not_matter_and_a_sum_is_no_joint_solution() -> None:
    C, A = rows(3, 1), rows(3, 2)
    Q = unused(gram(rows(6, 3)), 1.0)
    joint = held_change(C, A, Q, 0.5)
    shuffled = held_change(C[[2, 0, 1]], A[[2, 0, 1]], Q, 0.5)
    assert (joint - shuffled).abs().max() < 1e-10
    alone = sum(held_change(C[k : k + 1], A[k : k + 1], Q, 0.5) for k in range(3))
    assert (joint - alone).norm() > 0.1 * joint.norm()
    assert held_change(C, C, Q, 0.5).abs().max() == 0


def test_what_every_image_reads_is_left_out_and_no_more() -> None:
    V = rows(3, 4)
    twice = torch.cat([V, 2 * V[:1], V[:1] + V[1:2]])  # five rows of rank three
    for given in (V, twice):
        B = outside(given)
        assert B.shape == (D, D - 3) and (V @ B).abs().max() < 1e-10
        assert (B.T @ B - torch.eye(D - 3, dtype=V.dtype)).abs().max() < 1e-12
    assert outside(V[:0]).shape == (D, D)
    assert outside(rows(D + 4, 5)).shape == (D, 0)


def test_what_all_words_share_does_not_pass_for_what_is_kept() -> None:
    common = 100 * rows(1, 11)
    C, R = rows(2, 1) + common, rows(6, 3) + common
    naive, weighed = unused(gram(R), 0.99), free(R, common, 0.99)
    assert naive.shape[1] == D - 1  # one direction has nearly all the energy, and nothing would be held
    assert (R @ weighed).norm() < 0.2 * (R @ outside(common)).norm()
    assert free_share(C, weighed, outside(common)).min() > 0.2 > free_share(C, weighed, EYE).max()


def test_centres_are_the_middles_of_clusters() -> None:
    middles = 10 * rows(3, 1)
    clusters = torch.stack([middles + rows(3, seed) for seed in range(2, 6)])
    found = centres(torch.cat([rows(1, 9), clusters.flatten(0, 1)]))
    assert torch.equal(found[:1], rows(1, 9)) and found.shape == (4, D)
    assert torch.cdist(clusters.mean(0), found[1:]).amin(1).max() < 1e-9


def codes_of(toy: Toy, concept: Concept) -> Tensor:
    with torch.no_grad():
        return toy.contrast(concept).present.double()


def moved(edit: Edit, codes: Tensor) -> float:
    """How far readers see codes move, beside how large they are."""
    return sum(float((codes @ delta.double().T).norm() / codes.norm()) for delta in edit.deltas.values())


def test_kept_words_and_the_empty_prompt_stay_while_the_concept_goes(toy: Toy, cats: Concept) -> None:
    dogs = Concept(name="Dogs")
    bare = {"rows": "last", "kept_rows": "last", "templates": False, "hold": 1.0, "beta": 0.01, "rest": "all"}
    with torch.no_grad():
        resting = toy.resting_codes().double()
    free, kept = (
        drain(run_method(NullSpace(**bare), Request(toy, [cats]))),
        drain(run_method(NullSpace(**bare), Request(toy, [cats], [dogs]))),
    )
    assert moved(kept, codes_of(toy, dogs)) < 1e-5 < 0.05 < moved(free, codes_of(toy, dogs))
    assert moved(kept, resting) < 1e-5 and moved(free, resting) < 1e-5
    word = codes_of(toy, cats)
    assert moved(free, word) > 0.1
    assert moved(drain(run_method(NullSpace(**bare | {"rest": "none"}), Request(toy, [cats]))), resting) > 0.01
    centred = drain(run_method(NullSpace(**bare | {"rest": "centres"}), Request(toy, [cats])))
    assert moved(centred, resting[:1]) < 1e-5 < moved(centred, resting)


def test_values_alone_can_be_changed(toy: Toy, cats: Concept) -> None:
    both, values = (
        drain(run_method(NullSpace(), Request(toy, [cats]))),
        drain(run_method(NullSpace(readers="v"), Request(toy, [cats]))),
    )
    assert {name.split(".")[-2] for name in values.deltas} == {"to_v"}
    assert all(torch.equal(both.deltas[name], delta) for name, delta in values.deltas.items())
    assert len(both.deltas) == 2 * len(values.deltas)


def test_erasability_is_told_warned_of_and_refused(toy: Toy, cats: Concept) -> None:
    bare = {"templates": False, "rest": "none", "kept_rows": "tail"}
    alone = drain(run_method(NullSpace(**bare), Request(toy, [cats]))).about
    assert alone["erasability"]["Cats"] == pytest.approx(1.0)
    assert "note" not in alone
    near = [Concept(name=name) for name in ("Cats too", "Cats and dogs", "Big Cats")]
    warned = drain(run_method(NullSpace(**bare, hold=0.99), Request(toy, [cats], near))).about
    assert 0.001 < warned["erasability"]["Cats"] < 0.05
    assert "nearly contains 'Cats'" in warned["note"]
    for impossible in ({"hold": 0.99, "beta": 1e-4}, {"hold": 1.0}):  # torn along with what is kept; not moved at all
        with pytest.raises(BadInput, match="What is kept contains 'Cats'"):
            drain(run_method(NullSpace(**bare, **impossible), Request(toy, [cats], near)))


def test_the_safe_preset_amplifies_no_code_of_a_model(toy: Toy, gogh: Concept, cats: Concept) -> None:
    readers = torch.cat([layer.weight.detach().double() for layer in toy.readers().values()])

    def spectrum(**knobs: str) -> Tensor:
        edit = drain(run_method(NullSpace(**knobs), Request(toy, [gogh, cats])))  # type: ignore[arg-type]
        change = torch.linalg.lstsq(readers, torch.cat([delta.double() for delta in edit.deltas.values()])).solution
        return torch.linalg.eigvals(torch.eye(32, dtype=torch.float64) + change).real

    safe = spectrum(**NullSpace.presets["safe"])
    assert safe.min() > -1e-4 and safe.max() < 1 + 1e-4 and safe.min() < 0.5
    assert spectrum().max() > 1 + 1e-3


def test_filtering_holds_only_what_would_move(toy: Toy, cats: Concept) -> None:
    keep = [Concept(name=name) for name in ("Dogs", "Frogs", "Birds", "Trees")]
    every = drain(run_method(NullSpace(hold=1.0, templates=False, kept_rows="last"), Request(toy, [cats], keep)))
    some = drain(
        run_method(NullSpace(hold=1.0, templates=False, kept_rows="last", filter=True), Request(toy, [cats], keep))
    )
    assert some.about["free_directions"] > every.about["free_directions"]


def test_the_filter_lets_go_of_what_an_edit_would_leave_alone() -> None:
    kept = torch.stack([3 * EYE[0] + EYE[1], EYE[2], EYE[3]])  # the first has a share of the concept
    codes = Gathered(EYE[:1], EYE[5:6], kept, EYE[8:11], (1,), pooled=False)
    _, Q = NullSpace(hold=1.0, rest="none", filter=True).free(codes)
    torch.testing.assert_close((kept @ Q).norm(dim=1), torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    _, every = NullSpace(hold=1.0, rest="none").free(codes)
    assert float((kept @ every).norm()) < 1e-8


def test_a_joint_solve_knows_no_order_and_undoing_is_exact(toy: Toy, gogh: Concept, cats: Concept) -> None:
    keep = [Concept(name="Dogs")]
    one = drain(run_method(NullSpace(), Request(toy, [gogh], keep)))
    both, swapped = (drain(run_method(NullSpace(), Request(toy, pair, keep))) for pair in ([gogh, cats], [cats, gogh]))
    for name, delta in both.deltas.items():
        torch.testing.assert_close(delta, swapped.deltas[name], rtol=0, atol=1e-7)
    two = drain(run_method(NullSpace(), Request(toy, [cats], keep)))
    assert any((both.deltas[name] - one.deltas[name] - two.deltas[name]).abs().max() > 1e-3 for name in both.deltas)
    assert drain(run_method(NullSpace(), Request(toy, [gogh], keep))).hash == one.hash
