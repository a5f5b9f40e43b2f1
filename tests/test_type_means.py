"""What is believed of the mean of a type, and how shares are moved to it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from xmodal.models.parts.type_means import Drawn, Means, said

DEPTH = 300


def shares(rng: np.random.Generator) -> np.ndarray:
    """Six types of two kinds, (6, 150): the types of a kind differ in five genes."""
    found = np.repeat(rng.gamma(0.7, 1, (2, 150)), 3, 0)
    for one in range(6):
        found[one, 20 * one : 20 * one + 5] += 4
    return found / found.sum(1, keepdims=True)


LIKENESS = np.kron(np.eye(2), np.full((3, 3), 0.8)) + 0.2 * np.eye(6)


def drawn(share: np.ndarray, cells: int, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(DEPTH * share, (cells, len(share)))


def logged(counts: np.ndarray) -> np.ndarray:
    return np.log1p(counts / counts.sum(1, keepdims=True) * DEPTH)


def test_what_is_believed_of_few_cells_is_nearer_the_type_than_their_mean() -> None:
    rng = np.random.default_rng(0)
    share, sizes = shares(rng), [25, 400, 400, 25, 400, 12]
    codes = np.repeat(np.arange(6), sizes)
    counts = np.vstack([drawn(s, n, rng) for s, n in zip(share, sizes, strict=True)])
    means = Means.of(sp.csr_matrix(counts.astype(np.float32)), codes, 6, DEPTH)
    np.testing.assert_allclose(means.mean[0], logged(counts[:25]).mean(0), rtol=1e-5)
    np.testing.assert_allclose(means.variance[0], logged(counts[:25]).var(0), atol=1e-5)
    true = np.stack([logged(drawn(s, 5000, rng)).mean(0) for s in share])
    found = means.believed(LIKENESS)

    def misses(guess: np.ndarray) -> np.ndarray:
        return np.square(guess - true).sum(1)

    assert (misses(found)[[0, 3]] < 0.8 * misses(means.mean)[[0, 3]]).all()
    assert (misses(found)[[1, 2, 4]] < 1.3 * misses(means.mean)[[1, 2, 4]]).all()
    assert not found[5].any()  # of 12 cells nothing is kept
    own = np.array(
        [found[one, 20 * one : 20 * one + 5].mean() / true[one, 20 * one : 20 * one + 5].mean() for one in (0, 3)]
    )
    assert (abs(own - 1) < 0.15).all()  # markers stay


def test_two_types_say_nothing_of_each_other() -> None:
    rng = np.random.default_rng(1)
    counts = sp.csr_matrix(np.vstack([drawn(s, 30, rng) for s in shares(rng)[:2]]).astype(np.float32))
    means = Means.of(counts, np.repeat([0, 1], 30), 2, DEPTH)
    np.testing.assert_array_equal(means.believed(np.eye(2)), means.mean)


def test_what_others_say_is_mostly_what_the_alike_say() -> None:
    found = said(LIKENESS)
    np.testing.assert_allclose(found.sum(1), 1)
    assert not found.diagonal().any() and (found[0, 1:3] > 0.3).all() and (abs(found[0, 3:]) < 0.1).all()


def test_a_step_brings_the_mean_of_drawn_cells_to_what_is_wanted() -> None:
    rng = np.random.default_rng(2)
    share, other = shares(rng)[[0, 3]]
    wanted = logged(drawn(other, 20_000, rng)).mean(0)
    now = np.log(share)
    far = []
    for _ in range(5):
        own = np.exp(now - np.logaddexp.reduce(now))
        counts = drawn(own, 400, rng)
        total = counts.sum(1)
        far.append(np.square(logged(drawn(own, 20_000, rng)).mean(0) - wanted).sum())
        now = now + Drawn(counts.astype(float), own * total[:, None], total).step(wanted, DEPTH)
    noise = logged(drawn(other, 400, rng)).var(0).sum() / 400
    assert far[1] < 0.3 * far[0] and far[-1] < noise  # the draw's own noise is taken out
