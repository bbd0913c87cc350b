"""Problems with published optima: those of Maros and Meszaros (1999), "A repository of convex
quadratic programming problems", that are strictly convex, or are so with a ridge of 1e-8, and that
a formula gives (CUTEst)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from strategies.layers import MeanVarianceLayer

OR_LIBRARY = Path(__file__).parents[4] / "shared" / "data" / "or_library"
N = {1: 31, 2: 85, 3: 89, 4: 98, 5: 225}  # assets of a market
FREE = (-1e4, 1e4)  # a budget that does not bind


def cvxqp(rows):
    """CVXQP1 to 3 with 100 variables: chains of three, with weights from 1 to 100."""
    n = 100
    P, A = np.zeros((n, n)), np.zeros((rows, n))
    for i in range(1, n + 1):
        chain = np.zeros(n)
        for j in (i - 1, (2 * i - 1) % n, (3 * i - 1) % n):
            chain[j] += 1
        P += i * np.outer(chain, chain)
    for i in range(1, rows + 1):
        for j, weight in ((i - 1, 1), ((4 * i - 1) % n, 2), ((5 * i - 1) % n, 3)):
            A[i - 1, j] += weight
    return P, np.zeros(n), {"A": A, "b": np.full(rows, 6.0), "lower": 0.1, "upper": 10.0}, 0.0


def hs21():
    limits = {"G": [[-10, 1]], "h": [-10], "lower": [2, -50], "upper": [50, 50]}
    return np.diag([0.02, 2]), np.zeros(2), limits, -100.0


def hs35():
    P = np.array([[4, 2, 2], [2, 4, 0], [2, 0, 2.0]])
    limits = {"G": [[1, 1, 2]], "h": [3], "lower": 0.0, "upper": 1e3}
    return P, np.array([8, 6, 4]), limits, 9.0


def hs76():
    P = np.array([[2, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 2, 1], [0, 0, 1, 1.0]])
    G = [[1, 2, 1, 1], [3, 1, 2, -1], [0, -1, -4, 0]]
    limits = {"G": G, "h": [5, 4, -1.5], "lower": 0.0, "upper": 1e3}
    return P, np.array([1, 3, -1, 1]), limits, 0.0


def hs118():
    """Five periods of three products whose changes and sums are limited: P is 1e-4."""
    P = np.diag(np.tile([0.0002, 0.0002, 0.0003], 5))
    change = np.eye(12, 15, 3) - np.eye(12, 15)
    most = np.tile([6.0, 7.0, 6.0], 4)
    sums = -np.kron(np.eye(5), np.ones(3))
    limits = {
        "G": np.r_[change, -change, sums],
        "h": np.r_[most, np.full(12, 7.0), -np.array([60, 50, 70, 85, 100])],
        "lower": np.r_[8, 43, 3, np.zeros(12)],
        "upper": np.r_[21, 57, 16, np.tile([90, 120, 60], 4)],
    }
    return P, -np.tile([2.3, 1.7, 2.2], 5), limits, 0.0


@pytest.mark.parametrize(
    ("problem", "optimum", "ridge"),
    [
        (cvxqp(50), 1.15907181e4, 1e-8),
        (cvxqp(25), 8.12094048e3, 1e-8),
        (cvxqp(75), 1.19434322e4, 1e-8),
        (hs21(), -9.99600000e1, 0.0),
        (hs35(), 1.11111111e-1, 0.0),
        (hs76(), -4.68181818, 0.0),
        (hs118(), 6.64820450e2, 0.0),
    ],
    ids=["CVXQP1_S", "CVXQP2_S", "CVXQP3_S", "HS21", "HS35", "HS76", "HS118"],
)
def test_the_optimum_is_the_published_one(problem, optimum, ridge):
    P, q, limits, constant = problem
    limits = {name: torch.as_tensor(np.asarray(each, float)) for name, each in limits.items()}
    given = torch.from_numpy(P + ridge * np.eye(len(P)))[None], torch.from_numpy(q.astype(float))
    (z,) = MeanVarianceLayer()(given[0], given[1][None], budget=FREE, **limits).numpy()
    assert z @ P @ z / 2 - q @ z + constant == pytest.approx(optimum, rel=2e-9)


@pytest.mark.parametrize("market", range(1, 6))
def test_frontiers_are_those_of_or_library(market):
    """The least variance at 2,000 returns each, published to ten decimals (Chang and others 2000,
    "Heuristics for cardinality constrained portfolio optimisation")."""
    if not OR_LIBRARY.is_dir():
        pytest.skip(f"{OR_LIBRARY} is missing")
    given = np.loadtxt(
        OR_LIBRARY / f"port{market}.txt.gz", skiprows=1, usecols=(0, 1), max_rows=N[market]
    )
    pairs = np.loadtxt(OR_LIBRARY / f"port{market}.txt.gz", skiprows=1 + N[market])
    returns, variances = np.loadtxt(OR_LIBRARY / f"portef{market}.txt.gz").T
    mean, deviation = given.T
    correlation = np.zeros((len(mean), len(mean)))
    i, j = pairs[:, :2].astype(int).T - 1
    correlation[i, j] = correlation[j, i] = pairs[:, 2]
    risk = torch.from_numpy(correlation * np.outer(deviation, deviation))
    floors = torch.from_numpy(np.minimum(returns, mean.max()))[:, None]
    weights = MeanVarianceLayer()(
        risk.expand(len(floors), -1, -1), torch.zeros(len(floors), len(mean), dtype=torch.float64),
        upper=1.0, rows=torch.from_numpy(mean)[None], row_lower=floors,
        row_upper=torch.full_like(floors, torch.inf),
    )  # fmt: skip
    found = torch.einsum("bi,ij,bj->b", weights, risk, weights).numpy()
    np.testing.assert_allclose(found, variances, rtol=0, atol=1e-9)
