"""Compare the mean-variance layer with qpth (or qpth with our solver) while a network runs.

    with cross_check() as check:
        module(inputs)
    check.weights, check.gradients       # the largest differences, over a handful of problems

Two solvers that share no code agree, or ``SolverMismatch`` stops the run.

Where a constraint is barely active the weights have a kink, and the two gradients differ rightly:
an active-set method gives the derivative of one side, an interior-point method a mixture of both;
at a degenerate vertex, such as all in cash, many sides meet. A sample whose gradients differ is
therefore moved a little, into the side whose active set is that of the solution. There the solvers
agree, and the gradient does not change on the way (P stays): so the one in question has to be it.
A fault stays one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from strategies.layers.optimisation.active_set import ActiveSet
from strategies.layers.optimisation.problem import Problem, Solver
from strategies.layers.optimisation.qpth_solver import Qpth, installed
from strategies.layers.optimisation.reference import Reference

# Moves off a kink, of the largest entry of q or Pz: beyond the blur of qpth, which is wider where
# the weight in question hardly matters.
NUDGES = (1e-4, 1e-3, 1e-2, 1e-1)
DIRECTIONS = 4  # of each, for where many kinks meet one may lead out of the side
CLOSE = 1e-2  # of a weight to a break point: it is moved away from there
SAME = 1e-6  # difference of gradients of the same side, relative

_open: ContextVar[CrossCheck | None] = ContextVar("open_cross_check", default=None)


class SolverMismatch(RuntimeError):
    """The layer's solver and its peer disagree beyond the tolerance."""


@dataclass
class CrossCheck:
    """What was compared, and the largest differences seen.

    Attributes:
        most: problems of a batch that are compared, the first and the last among them.
        largest: assets of a problem beyond which it is not compared. The time of qpth grows with
            their cube (a second a problem at 500), and of so many weights several often stand
            barely at their bounds. The residual of every solve is checked at any size.
        weights_tolerance: largest difference of a weight, a fraction of the portfolio.
        gradients_tolerance: largest difference of the gradient of q, relative to its largest
            entry, or to that of an unconstrained weight if that is more. An interior point
            method blurs the gradient where a constraint is barely active: qpth's own error
            reaches 6e-3.
        samples: problems compared; one that the peer does not solve is not counted, nor one whose
            bounds leave a single portfolio (five caps of 20 %): it has no interior for qpth's
            method, whose gradient is then of no use.
        kinks: how many of them stand at a kink.
        weights, gradients: the largest differences; at a kink, that of the gradients beside it.
        peer: the other solver: "qpth", or "reference" where qpth is not installed; "active_set"
            where the layer's own is qpth.
    """

    most: int = 4
    largest: int = 100
    weights_tolerance: float = 1e-5
    gradients_tolerance: float = 1e-2
    samples: int = 0
    kinks: int = 0
    weights: float = 0.0
    gradients: float = 0.0
    peer: str = ""

    def compare(self, problem: Problem, solver: Solver) -> None:
        """Solve a handful of the batch by ``solver`` and its peer, forward and backward.

        Raises:
            SolverMismatch: they differ by more than the tolerances.
        """
        batch, assets = problem.expected_return.shape
        if assets > self.largest:
            return
        chosen = torch.linspace(0, batch - 1, min(self.most, batch)).round().long()
        few = problem.of_samples(chosen).each_tensor(Tensor.detach)
        pull = torch.linspace(-1, 1, few.expected_return.numel(), dtype=torch.float64)
        pull = pull.to(few.expected_return.device).view_as(few.expected_return)
        peer = peer_of(solver)
        self.peer = PEERS[type(peer)]
        compared = partial(_compared, solver, peer)
        seen = compared(few, pull)
        for sample in (seen.solved & (seen.gradients > self.gradients_tolerance)).nonzero():
            beside = self._beside_a_kink(compared, few, pull, sample, seen)
            if beside is not None:
                self.kinks += 1
                seen.gradients[sample] = beside
        if not bool(seen.solved.any()):
            return
        self.samples += int(seen.solved.sum())
        self.weights = max(self.weights, float(seen.weights[seen.solved].max()))
        self.gradients = max(self.gradients, float(seen.gradients[seen.solved].max()))
        if not (
            self.weights <= self.weights_tolerance and self.gradients <= self.gradients_tolerance
        ):
            raise SolverMismatch(
                f"{solver} and {peer} differ by {self.weights:.1e} in a weight and by "
                f"{self.gradients:.1e} in a gradient; the tolerances are "
                f"{self.weights_tolerance:.0e} and {self.gradients_tolerance:.0e}"
            )

    def _beside_a_kink(
        self,
        compared: Callable[[Problem, Tensor], _Seen],
        problem: Problem,
        pull: Tensor,
        sample: Tensor,
        seen: _Seen,
    ) -> float | None:
        """The difference of the gradients beside the kink at which a sample stands, or None."""
        alone, own = problem.of_samples(sample), pull[sample]
        pulls = alone.risk_times(seen.exact[sample]), alone.expected_return
        # With hardly a weight and hardly a return, what would move a weight by a hundredth.
        least = 0.01 * float(alone.risk_diagonal().mean())
        size = max(least, *(float(each.abs().max()) for each in pulls))
        generator = torch.Generator().manual_seed(0)
        for nudge in (each for each in NUDGES for _ in range(DIRECTIONS)):
            drawn = torch.rand(own.shape, generator=generator, dtype=torch.float64) + 0.5
            move = _into_the_side(alone, drawn.to(own.device))
            beside = alone.expected_return + nudge * size * move
            side = compared(replace(alone, expected_return=beside), own)
            apart = float((seen.gradient[sample] - side.gradient).abs().max())
            if (
                bool(side.solved.all())
                and float(side.weights) <= self.weights_tolerance
                and float(side.gradients) <= self.gradients_tolerance
                and apart <= SAME * seen.scale
            ):
                return float(side.gradients)
        return None


def _into_the_side(problem: Problem, sizes: Tensor) -> Tensor:
    """A change of q (1, N) that keeps the active set of a sample and makes it strictly so.

    Free weights close to a break point move off it by ``sizes`` (1, N), other free ones make up for
    it in the active rows: q moves by P times that. And it moves so that what holds the pinned
    weights, and the active rows, holds them harder. The largest entry of either is 1.
    """
    solution = ActiveSet().solve(problem)
    assert solution.states is not None
    count, zero = problem.lower.shape[1], torch.zeros_like(problem.lower)
    states, row_states = solution.states[:, :count].long(), solution.states[0, count:]
    upper = torch.maximum(problem.lower, problem.upper)
    holdings = zero if problem.holdings is None else problem.holdings
    kinks = [holdings] if problem.holdings is not None else []
    kinks += [zero] if problem.gross_limit is not None else []
    inner = [torch.minimum(torch.maximum(kink, problem.lower), upper) for kink in kinks]
    breaks = torch.stack([problem.lower, *inner, upper], dim=-1).sort(dim=-1).values
    low, high = (
        breaks.gather(-1, place.unsqueeze(-1)).squeeze(-1)
        for place in (states // 2, (states + 1) // 2)
    )
    z, free = solution.weights, states % 2 == 1
    sides = [  # signs of z - z0 and of z
        torch.where(free, torch.where(low >= kink, 1.0, -1.0), torch.sign(low - kink))
        for kink in (holdings, zero)
    ]
    inward = (z - low < CLOSE).to(z) - (high - z < CLOSE).to(z)
    move = torch.where(free, inward * sizes, 0.0)
    loose = (free & (inward == 0))[0]
    rows = torch.cat([problem.rows[0], *sides])[row_states != 0]  # the active ones
    if len(rows) and bool(loose.any()):
        lacking = rows @ move[0]
        move[0, loose] -= torch.linalg.pinv(rows[:, loose]) @ lacking
    harder = (z == upper).to(z) - (z == problem.lower).to(z)
    harder = torch.where(free, 0.0, harder * sizes)
    signs = row_states[row_states != 0].to(z)
    held = signs @ rows if len(rows) else torch.zeros_like(z[0])
    parts = problem.risk_times(move), harder + 0.1 * held
    return sum((part / part.abs().max().clamp_min(1e-300) for part in parts), torch.zeros_like(z))


PEERS = {Qpth: "qpth", Reference: "reference", ActiveSet: "active_set"}


def peer_of(solver: Solver) -> Solver:
    """The solver to compare with: it shares no code with the given one."""
    if isinstance(solver, Qpth):
        return ActiveSet()
    return Qpth() if installed() else Reference()


@contextmanager
def cross_check() -> Iterator[CrossCheck]:
    """Compare a handful of the problems of every solve inside the block."""
    check = CrossCheck()
    token = _open.set(check)
    try:
        yield check
    finally:
        _open.reset(token)


def open_cross_check() -> CrossCheck | None:
    """The check that is open now, for a layer to call, or None."""
    return _open.get()


class _Seen(NamedTuple):
    """How far two solvers are apart, (B,) each."""

    solved: Tensor  # bool, whether there is something to compare
    weights: Tensor
    gradients: Tensor  # over ``scale``
    scale: float
    exact: Tensor  # (B, N) weights of the active-set solver
    gradient: Tensor  # (B, N) of q, by the same


def _compared(solver: Solver, peer: Solver, problem: Problem, pull: Tensor) -> _Seen:
    """Solve by both, forward and backward, with the cotangent ``pull`` (B, N) of the weights."""
    found = []
    for each in (solver, peer):
        with torch.enable_grad():
            q = problem.expected_return.detach().requires_grad_()
            solution = each.solve(replace(problem, expected_return=q), None)
            (gradient,) = torch.autograd.grad(solution.weights, q, pull)
        found.append((solution.weights.detach(), gradient, solution.converged))
    (ours, our_gradient, our_end), (theirs, their_gradient, solved) = found
    exact = ours, our_gradient
    if isinstance(solver, Qpth):
        exact, solved = (theirs, their_gradient), our_end & solved
    # The bounds have to leave more than one portfolio of that budget.
    most, least = problem.upper.sum(-1), problem.lower.sum(-1)
    room = torch.minimum(most - problem.row_lower[:, 0], problem.row_upper[:, 0] - least)
    solved = solved & (room > 1e-6)
    scale = 1 / float(problem.risk_diagonal().detach().mean())  # of an unconstrained weight
    if (known := their_gradient[solved].abs()).numel():
        scale = max(scale, float(known.max()))
    return _Seen(
        solved,
        (ours - theirs).abs().amax(1),
        (our_gradient - their_gradient).abs().amax(1) / scale,
        scale,
        *exact,
    )
