"""A proximal interior-point method, for the rare problem whose rounds cycle.

    min  1/2 x'Px - q'x   subject to   A x = b,  G x + s = h,  s >= 0

by Newton steps on the optimality conditions with ``s lambda = mu``, mu going to zero, predicted and
corrected (Mehrotra 1992), each step regularised by ``rho |dx|^2 - delta |dlambda|^2`` (as in PIQP;
Schwan et al. 2023). So P may be singular, rows may depend on each other, and the constraints may
leave no interior. Near the optimum it tells which constraints are active; ``polish.py`` takes over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csr_matrix, diags

STEPS = 100
PROXIMAL = 1e-4  # rho and delta at the first step; they fall with mu, not below
LEAST = 1e-11
CLOSED = 1e-26  # mu at which no step adds a digit
REACH = 0.995  # of the way to the boundary


class Program(NamedTuple):
    """A quadratic program, its numbers of order one."""

    risk: np.ndarray  # P (X, X)
    linear: np.ndarray  # q (X,)
    equalities: np.ndarray  # A (E, X)
    targets: np.ndarray  # b (E,)
    inequalities: csr_matrix | np.ndarray  # G (I, X)
    limits: np.ndarray  # h (I,)


class Iterate(NamedTuple):
    x: np.ndarray  # (X,)
    slack: np.ndarray  # s (I,)
    price: np.ndarray  # lambda (I,), the multipliers of the inequalities
    dual: np.ndarray  # (E,), those of the equalities
    gap: float  # mu, the mean of slack times price


def iterates(program: Program) -> Iterator[Iterate]:
    """The steps of the method, until they lead no further."""
    P, q, A, b, G, h = program
    x, dual = np.zeros(len(q)), np.zeros(len(b))
    slack, price = np.maximum(h, 1.0), np.ones(len(h))
    count = max(len(h), 1)
    for _ in range(STEPS):
        gap = float(slack @ price) / count
        yield Iterate(x, slack, price, dual, gap)
        if gap < CLOSED:
            return
        small = max(LEAST, min(PROXIMAL, gap))
        of_x = P @ x - q + A.T @ dual + G.T @ price
        of_dual, of_price = A @ x - b, G @ x + slack - h
        weight = 1 / (small + slack / price)
        inner = G.T @ (diags(weight) @ G)
        matrix = P + (A.T @ A) / small + (inner if isinstance(G, np.ndarray) else inner.toarray())
        matrix[np.diag_indices_from(matrix)] += small
        try:
            factor = cho_factor(matrix)
        except np.linalg.LinAlgError:
            return

        def step(complementary: np.ndarray) -> tuple[np.ndarray, ...]:
            bent = of_price + complementary / price  # noqa: B023
            right = -of_x - A.T @ of_dual / small - G.T @ (weight * bent)  # noqa: B023
            dx = cho_solve(factor, right)  # noqa: B023
            dprice = weight * (G @ dx + bent)  # noqa: B023
            dslack = (complementary - slack * dprice) / price  # noqa: B023
            return dx, dslack, dprice, (A @ dx + of_dual) / small  # noqa: B023

        _, dslack, dprice, _ = step(-slack * price)
        length = min(_room(slack, dslack), _room(price, dprice))
        ahead = float((slack + length * dslack) @ (price + length * dprice)) / count
        centre = (ahead / gap) ** 3 * gap if gap > 0 else 0.0
        dx, dslack, dprice, ddual = step(centre - slack * price - dslack * dprice)
        length = min(1.0, REACH * min(_room(slack, dslack), _room(price, dprice)))
        if not (np.isfinite(dx).all() and length > 1e-10):
            return
        x, dual = x + length * dx, dual + length * ddual
        slack = np.maximum(slack + length * dslack, 1e-300)
        price = np.maximum(price + length * dprice, 1e-300)


def _room(value: np.ndarray, change: np.ndarray) -> float:
    """The longest step, at most 1 / ``REACH``, that leaves every value positive."""
    falls = change < 0
    return min(1 / REACH, float((value[falls] / -change[falls]).min(initial=np.inf)))
