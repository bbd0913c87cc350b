"""The cells of deep equilibrium encoders, well-posed whatever their parameters.

A cell is a module with ``problem(x, present)``, the map f of the solver's state and the tensors it
takes after that state, and ``read(state)``, which gives Z (B, N, H). Its matrices pass through a
bound, so that f has exactly one fixed point.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Map = Callable[..., Tensor]


class Cell(nn.Module):
    """What all cells share: the projection of the features, and the bound."""

    inject: nn.Linear
    bound: float

    def problem(self, x: Tensor, present: Tensor) -> tuple[Map, tuple[Tensor, ...]]:
        """The map f, and what it takes after the state, from x (B, N, F) and present (B, N, 1)."""
        raise NotImplementedError

    def read(self, state: Tensor) -> Tensor:
        """Z (B, N, H) of the state that is solved for."""
        return state


class MeanFieldCell(Cell):
    """``f(Z) = tanh(Z W1 + mean(Z) W2 + x U + b)``, the mean over the assets that trade.

    W1 maps deviations from the mean, W1 + W2 the mean itself, and the two are orthogonal: so the
    linear part's 2-norm is exactly max(s(W1), s(W1 + W2)), with s the largest singular value, and
    tanh adds nothing to it. These two matrices are the parameters, each scaled to ``bound``.
    """

    def __init__(self, features: int, hidden: int, bound: float):
        super().__init__()
        self.bound = bound
        self.inject = nn.Linear(features, hidden)
        self.deviation = nn.Parameter(_square(hidden))
        self.mean = nn.Parameter(_square(hidden))

    def weights(self) -> tuple[Tensor, Tensor]:
        """W1 and W2, (H, H) each."""
        deviation, mean = bounded(self.deviation, self.bound), bounded(self.mean, self.bound)
        return deviation, mean - deviation

    def problem(self, x: Tensor, present: Tensor) -> tuple[Map, tuple[Tensor, ...]]:
        W1, W2 = self.weights()

        def f(z: Tensor, injected: Tensor, present: Tensor, share: Tensor) -> Tensor:
            mean = share.mT @ z  # (B, 1, H)
            return torch.tanh(z @ W1 + (mean @ W2 + injected)) * present

        return f, (self.inject(x), present, mean_weights(present))


class _WeightedCell(Cell):
    """``f(Z) = tanh(Z W1 + A Z W2 + x U + b)``, with A (N, N) of the subclass.

    No row of |A| sums to more than one. So in the norm max_i |z_i|_2 the map contracts by
    s(W1) + s(W2), held at ``bound``.
    """

    own: nn.Parameter
    others: nn.Parameter

    def weights(self) -> tuple[Tensor, Tensor]:
        """W1 and W2, (H, H) each, scaled alike."""
        sizes = torch.linalg.matrix_norm(self.own, 2) + torch.linalg.matrix_norm(self.others, 2)
        scale = self.bound / sizes.clamp_min(self.bound)
        return self.own * scale, self.others * scale

    def graph(self, x: Tensor, present: Tensor) -> Tensor:
        """A (B, N, N); [b, i, j] is the weight of asset j for asset i on sample b."""
        raise NotImplementedError

    def problem(self, x: Tensor, present: Tensor) -> tuple[Map, tuple[Tensor, ...]]:
        W1, W2 = self.weights()

        def f(z: Tensor, injected: Tensor, present: Tensor, graph: Tensor) -> Tensor:
            return torch.tanh(z @ W1 + graph @ (z @ W2) + injected) * present

        return f, (self.inject(x), present, self.graph(x, present))


class GraphCell(_WeightedCell):
    """``f(Z) = tanh(Z W1 + A Z W2 + x U + b)``, with A (N, N) computed from x, rows summing to one.

    A is dot-product attention over x, among the assets that trade; on the state itself it would
    not be Lipschitz (Kim, Papamakarios & Mnih, arXiv 2006.04710).
    """

    def __init__(self, features: int, hidden: int, bound: float):
        super().__init__()
        self.bound = bound
        self.inject = nn.Linear(features, hidden)
        self.query = nn.Linear(features, hidden)
        self.key = nn.Linear(features, hidden, bias=False)
        self.own = nn.Parameter(_square(hidden))
        self.others = nn.Parameter(_square(hidden))

    def graph(self, x: Tensor, present: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).mT / self.key.out_features**0.5
        # Not minus infinity, which would make a row of NaN where nothing trades.
        absent = (present == 0).mT  # (B, 1, N)
        return torch.softmax(scores.masked_fill(absent, torch.finfo(x.dtype).min), dim=2)


class PairCell(_WeightedCell):
    """``f(Z) = tanh(Z W1 + A Z W2 + x U + b)``, with A (N, N) a parameter: lead-lag relations.

    A_ij is what asset i takes from asset j, of either sign, scaled so that no row of |A| sums to
    more than one. A starts at zero, and belongs to these N assets alone.
    """

    def __init__(self, features: int, hidden: int, bound: float, assets: int):
        super().__init__()
        self.bound = bound
        self.inject = nn.Linear(features, hidden)
        self.own = nn.Parameter(_square(hidden))
        self.others = nn.Parameter(_square(hidden))
        self.pairs = nn.Parameter(torch.zeros(assets, assets))

    def graph(self, x: Tensor, present: Tensor) -> Tensor:
        graph = self.pairs / self.pairs.abs().sum(1, keepdim=True).clamp_min(1)
        return graph.expand(len(x), -1, -1)


class MonotoneCell(Cell):
    """``Z = relu(Z W1 + mean(Z) (W2 - W1) + x U + b)``, W of any norm (Winston & Kolter, 2020).

    W1 and W2 are each ``(1 - m) I - A'A + B - B'`` with m = 1 - bound (arXiv 2006.08591, eq. 9), so
    that I minus the linear part is monotone by m, and Z exists and is unique. The state that is
    solved for is that of Peaceman-Rachford splitting (section 3.2 there): a contraction, which
    `Picard` iterates, and which ``Picard(damping=0.5)`` turns into Douglas-Rachford.
    """

    def __init__(self, features: int, hidden: int, bound: float):
        super().__init__()
        self.bound = bound
        self.inject = nn.Linear(features, hidden)
        # From A'A of about one half the splitting takes a third of the steps it takes from zero.
        start = 0.7 * torch.eye(hidden)
        self.gram = nn.Parameter(torch.stack([start + _square(hidden), start + _square(hidden)]))
        self.skew = nn.Parameter(torch.stack([_square(hidden), _square(hidden)]))

    def weights(self) -> Tensor:
        """W1, for deviations from the mean, and W2, for the mean: (2, H, H)."""
        identity = torch.eye(self.gram.shape[1], dtype=self.gram.dtype, device=self.gram.device)
        skew = self.skew - self.skew.mT
        return self.bound * identity - self.gram.mT @ self.gram + skew

    def problem(self, x: Tensor, present: Tensor) -> tuple[Map, tuple[Tensor, ...]]:
        W = self.weights()
        identity = torch.eye(W.shape[1], dtype=W.dtype, device=W.device)
        # The step 1 / |I - W| contracts fastest; Z does not depend on it, so no gradient does.
        step = 1 / torch.linalg.matrix_norm((identity - W).detach(), ord=2).max()
        Q, R = torch.linalg.qr(identity + step * (identity - W))
        resolvent = torch.linalg.solve_triangular(R, Q.mT, upper=True)  # (2, H, H)

        def f(v: Tensor, injected: Tensor, present: Tensor, share: Tensor) -> Tensor:
            reflected = v.abs()  # 2 relu(v) - v
            drive = reflected + step * injected
            mean = share.mT @ drive  # (B, 1, H)
            solved = (drive - mean) @ resolvent[0] + mean @ resolvent[1]
            return (2 * solved - reflected) * present

        return f, (self.inject(x) * present, present, mean_weights(present))

    def read(self, state: Tensor) -> Tensor:
        return torch.relu(state)


def bounded(raw: Tensor, bound: float) -> Tensor:
    """Each matrix (..., H, H) whose largest singular value exceeds ``bound``, scaled to it."""
    return raw * (bound / torch.linalg.matrix_norm(raw, 2, keepdim=True).clamp_min(bound))


def _square(hidden: int) -> Tensor:
    """Random (H, H) with a largest singular value of about one half."""
    return torch.randn(hidden, hidden) * (0.25 / hidden**0.5)


def mean_weights(present: Tensor) -> Tensor:
    """Weights (B, N, 1) that make a sum over the assets the mean over those that trade."""
    return present / present.sum(1, keepdim=True).clamp_min(1)
