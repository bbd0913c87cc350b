"""What this version takes beside another one: the same work in two checkouts, in turns.

    python -m benchmarks.two_versions FOLDER [--rounds 3]

FOLDER is a checkout of the other version (``git worktree add FOLDER COMMIT``); both run on the
packages of this Python. Least CPU seconds of all rounds, one thread; a ratio above 1: this version
takes longer. The network is the fully invested one, with one validation block, which both know.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parents[1]


def least(work: Callable[[], object], repeats: int) -> float:
    """Least CPU seconds of ``work``, after one call that counts for nothing."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def known(call: Callable[..., object], **options: object) -> dict[str, object]:
    """Those of the options that ``call`` has in this version."""
    return {
        name: each for name, each in options.items() if name in inspect.signature(call).parameters
    }


def times() -> dict[str, float]:
    """{work: CPU seconds} in the version that is imported."""
    import torch

    from data_loaders import load
    from engine import Costs, Training, WalkForward, backtest
    from strategies import DEQMeanVariance, EqualWeight, InverseVolatility, MinimumVariance
    from strategies.layers import DEQEncoder, MeanVarianceLayer

    torch.set_num_threads(1)
    taken = {}
    panel = load("sp500", start="2000-01-01")
    quiet = known(backtest, ledger=False, progress=False)
    plan = WalkForward(train="5Y", refit="10Y", rebalance="W-FRI")
    training = Training(epochs=6, **known(Training, validation_blocks=1))
    network = DEQMeanVariance(**known(DEQMeanVariance, cash=False))
    for strategy in (EqualWeight(), InverseVolatility(), MinimumVariance(), network):
        taken[f"backtest of {type(strategy).__name__}"] = least(
            lambda each=strategy: backtest(each, panel, plan, Costs(0.001), training, **quiet), 3
        )
    draw = torch.Generator().manual_seed(0)
    layer = MeanVarianceLayer()
    for assets in (20, 50, 100, 250):
        returns = torch.randn(32, assets, 2 * assets, generator=draw, dtype=torch.float64)
        risk = (1e-4 / (2 * assets) * returns @ returns.mT).requires_grad_()
        q = (1e-4 * torch.randn(32, assets, generator=draw, dtype=torch.float64)).requires_grad_()
        cap = max(0.1, 2.3 / assets)
        taken[f"layer, 32 problems of {assets} assets"] = least(
            lambda p=risk, q=q, cap=cap: layer(p, q, upper=cap).square().sum().backward(), 30
        )
    encoder = DEQEncoder(8, 16).double()
    features = torch.randn(64, 20, 8, generator=draw, dtype=torch.float64)
    taken["DEQ encoder"] = least(lambda: encoder(features).square().sum().backward(), 30)
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("csv", "parquet"):
            file = f"{folder}/prices.{ending}"
            getattr(panel.prices, f"to_{ending}")(file)
            taken[f"reading a {ending} file"] = least(lambda file=file: load(file), 5)
    return taken


def run(folder: Path) -> dict[str, float]:
    """``times`` of the version in ``folder``, in a process of its own."""
    words = [sys.executable, str(Path(__file__).resolve()), "--times"]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("folder", type=Path, help="a checkout of the other version")
    reader.add_argument("--rounds", type=int, default=3)
    given = reader.parse_args()
    for folder in (other := given.folder.resolve(), HERE):
        run(folder)  # compiles the kernels
    rounds = [(run(other), run(HERE)) for _ in range(given.rounds)]
    print(f"{'CPU ms':<40}{'other':>10}{'this':>10}{'ratio':>7}")
    for work in rounds[0][1]:
        before, now = (1000 * min(each[side][work] for each in rounds) for side in (0, 1))
        print(f"{work:<40}{before:>10.2f}{now:>10.2f}{now / before:>7.2f}")


if __name__ == "__main__":
    if "--times" in sys.argv:
        print(json.dumps(times()))
    else:
        main()
