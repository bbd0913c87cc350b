"""One mean-variance problem as a quadratic program for ``interior_point.py``, and the way back.

The variables are the weights and, of each kink (turnover, gross), their distances t to it:
t >= |z - c| is ``z - t <= c`` and ``-z - t <= -c``. Every variable is measured in units of its own
volatility, every constraint in units of its largest coefficient, so that slacks and multipliers
can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags, hstack, identity, vstack
from torch import Tensor

from strategies.layers.optimisation.active_set.batched_rounds import Geometry
from strategies.layers.optimisation.active_set.interior_point import Iterate, Program
from strategies.layers.optimisation.problem import Problem

DENSE = 0.05  # share of entries that are not zero from which on a matrix is not kept sparse


class _Kink(NamedTuple):
    row: int  # of the limit of the distances' sum
    centre: np.ndarray  # (N,) c
    first: int  # place of its first inequality: N of one sign, then N of the other
    limit: int  # place of the limit, -1 if there is none


class WeightsProgram:
    """The program of a problem of one sample; P and q are divided by ``unit``.

    Attributes:
        scaled: the program that is solved.
    """

    def __init__(self, problem: Problem, geometry: Geometry, unit: float):
        self.breaks = _array(geometry.breaks)  # (N, 2..4)
        self.least, self.most = (_array(limit) for limit in geometry.limits)  # (R + 2,)
        lower, upper, given = self.breaks[:, 0], self.breaks[:, -1], _array(problem.rows)
        n, self.equal = len(lower), self.least == self.most
        fixed, equal = lower == upper, self.equal[:-2]
        centres, costs = [], []
        if problem.holdings is not None:
            centres.append((len(given), _array(geometry.holdings)))
            costs.append(_array(geometry.cost))
        if problem.gross_limit is not None:
            centres.append((len(given) + 1, np.zeros(n)))
            costs.append(np.zeros(n))
        parts = 1 + len(centres)
        unit_matrix = identity(n, format="csr")
        self._blocks: list[csr_matrix] = []
        self._limits: list[np.ndarray] = []
        self.bounds: list[tuple[int, np.ndarray]] = []  # break point, places (N,), -1 for none
        for sign, bound, j in ((-1, lower, 0), (1, upper, self.breaks.shape[1] - 1)):
            limited = np.isfinite(bound) & ~fixed
            first = self._add([sign * unit_matrix[limited]], sign * bound[limited], parts)
            self.bounds.append((j, np.where(limited, first + np.cumsum(limited) - 1, -1)))
        self.rows: list[tuple[int, int, int]] = []  # row, sign of the side, place
        for sign, bound in ((1, self.most[:-2]), (-1, self.least[:-2])):
            limited = np.flatnonzero(np.isfinite(bound) & ~equal)
            first = self._add([csr_matrix(sign * given[limited])], sign * bound[limited], parts)
            self.rows += [(int(row), sign, first + k) for k, row in enumerate(limited)]
        self.kinks: list[_Kink] = []
        for k, (row, centre) in enumerate(centres):
            before = [csr_matrix((n, n))] * k
            first = self._add([unit_matrix, *before, -unit_matrix], centre, parts)
            self._add([-unit_matrix, *before, -unit_matrix], -centre, parts)
            limit = -1
            if np.isfinite(self.most[row]):
                before = [csr_matrix((1, n))] * (k + 1)
                ones = csr_matrix(np.ones((1, n)))
                limit = self._add([*before, ones], self.most[row : row + 1], parts)
            self.kinks.append(_Kink(row, centre, first, limit))

        scale = np.sqrt(unit / _array(geometry.diagonal))  # a weight of one unit of volatility
        self.scale, columns = scale, np.tile(scale, parts)
        risk = np.zeros((n * parts, n * parts))
        risk[:n, :n] = _array(problem.dense_risk()) / unit * scale * scale[:, None]
        linear = np.concatenate([_array(problem.expected_return), *(-cost for cost in costs)])
        equalities = np.zeros((int(equal.sum() + fixed.sum()), n * parts))
        equalities[:, :n] = np.vstack([given[equal], np.eye(n)[fixed]]) * scale
        targets = np.concatenate([self.most[:-2][equal], lower[fixed]])
        self.equal_size = _or_one(np.abs(equalities).max(axis=1, initial=0.0))
        inequalities = vstack(self._blocks, format="csr") @ diags(columns)
        self.size = _or_one(abs(inequalities).max(axis=1).toarray().ravel())
        inequalities = (diags(1 / self.size) @ inequalities).tocsr()
        if inequalities.nnz > DENSE * np.prod(inequalities.shape):
            inequalities = inequalities.toarray()
        self.scaled = Program(
            risk,
            linear / unit * columns,
            equalities / self.equal_size[:, None],
            targets / self.equal_size,
            inequalities,
            np.concatenate(self._limits) / self.size,
        )

    def _add(self, blocks: list[csr_matrix], right: np.ndarray, parts: int) -> int:
        """Inequalities on the first groups of N variables, of ``parts``; the place of the first."""
        place = sum(map(len, self._limits))
        count, n = blocks[0].shape
        rest = [coo_matrix((count, n))] * (parts - len(blocks))
        self._blocks.append(hstack([*blocks, *rest], format="csr"))
        self._limits.append(right)
        return place

    def active(self, at: Iterate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is active at an iterate: its multiplier is larger than its slack.

        Returns:
            States of the weights (N,) and rows (R + 2,), and the rows' multipliers (R + 2,).
        """
        breaks, scale = self.breaks, self.scale
        n, price = len(breaks), at.price / self.size
        row_states, duals = self.equal.astype(np.int8), np.zeros(len(self.equal))
        count = int(self.equal[:-2].sum())
        duals[:-2][self.equal[:-2]] = at.dual[:count] / self.equal_size[:count]
        for row, sign, k in self.rows:
            if at.price[k] > at.slack[k]:
                row_states[row], duals[row] = sign, sign * price[k]
        pull = np.zeros_like(breaks)  # multipliers that hold a weight at a break point
        for j, places in self.bounds:
            pull[:, j] += np.where(places >= 0, at.price[places], 0.0)
        for row, centre, first, limit in self.kinks:
            both = np.minimum(at.price[first : first + n], at.price[first + n : first + 2 * n])
            pull += np.where(breaks == centre[:, None], both[:, None], 0.0)
            if limit >= 0 and at.price[limit] > at.slack[limit]:
                row_states[row], duals[row] = 1, price[limit]
        z = at.x[:n] * scale
        distance = np.abs(z[:, None] - breaks) / scale[:, None]
        same = breaks[:, :, None] == breaks[:, None, :]  # break points that coincide hold together
        held = np.where(np.isfinite(breaks), (pull[:, :, None] * same).sum(1) - distance, -np.inf)
        held[breaks[:, 0] == breaks[:, -1], 0] = np.inf
        segment = (breaks[:, 1:-1] < z[:, None]).sum(1)
        states = np.where(held.max(1) > 0, 2 * held.argmax(1), 2 * segment + 1)
        return states.astype(np.int8), row_states, duals


def _or_one(sizes: np.ndarray) -> np.ndarray:
    """One for a row of zeros."""
    return np.where(sizes > 0, sizes, 1.0)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor[0].numpy()
