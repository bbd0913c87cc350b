"""What each part is worth: training, cash, the equilibrium, the optimiser, costs in the loss.

    python -m benchmarks.ablation [--quick] [--data DIR] [--seeds 10] [--runs DIR]

The flagship with one part taken away or replaced, all else as it comes, on the markets and walks
of ``benchmarks/real_markets.py``, net of 10 bp.
"""

from __future__ import annotations

import time

from benchmarks.real_markets import arguments, markets, runs, shown, table
from engine import Training
from strategies import (
    DEQMeanVariance,
    EqualWeight,
    ExplicitMeanVariance,
    MinimumVariance,
    SoftmaxAllocation,
    Strategy,
    UnrolledMeanVariance,
    Untrained,
    VolatilityManaged,
)

WITHOUT_COSTS = "without costs in the loss"
ONCE = "costs in the loss once"
BELIEVED = "best epoch of one block, not shrunk"


def variants(lookback: int) -> dict[str, Strategy]:
    """The flagship, what it becomes without one part, and the rules that it starts from."""
    same = {"lookback": lookback}
    return {
        "DEQMeanVariance (implicit)": DEQMeanVariance(**same),
        "untrained": Untrained(DEQMeanVariance(**same)),
        BELIEVED: DEQMeanVariance(**same),
        "fully invested": DEQMeanVariance(cash=False, **same),
        "explicit network": ExplicitMeanVariance(**same),
        "1 step": UnrolledMeanVariance(steps=1, **same),
        "3 steps": UnrolledMeanVariance(steps=3, **same),
        "30 steps, unrolled": UnrolledMeanVariance(steps=30, **same),
        "without the optimiser": VolatilityManaged(SoftmaxAllocation(**same)),
        "without current holdings": DEQMeanVariance(inertia=0.0, **same),
        WITHOUT_COSTS: DEQMeanVariance(**same),
        ONCE: DEQMeanVariance(**same),
        "minimum variance": MinimumVariance(**same),
        "minimum variance with cash": VolatilityManaged(MinimumVariance(**same)),
        "EqualWeight": EqualWeight(),
    }


def main() -> None:
    given = arguments(__doc__)
    training = {
        WITHOUT_COSTS: Training(cost_factor=0.0),
        ONCE: Training(cost_factor=1.0),
        BELIEVED: Training(validation_blocks=1),
    }
    for market in markets(given.data):
        begin = time.perf_counter()
        parts = variants(market.lookback)
        found, _ = runs(market, parts, given.seeds, given.runs / "ablation", training)
        print(
            f"\n{market.name}, net of 10 bp; p against 1/N; {time.perf_counter() - begin:.0f} s\n"
        )
        print(shown(table(found)))


if __name__ == "__main__":
    main()
