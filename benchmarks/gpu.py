"""What a GPU makes of the layer, of training and of many seeds: on the GPU where there is one.

    python benchmarks/gpu.py [--device cuda] [--batch 1024] [--sizes 100 500] [--seeds 10]

The layer: forward and backward of B problems of n assets, long-only with a cap, given on the GPU
and on the CPU. The CPU's kernels solve both, on one thread: what differs is the copies.
Training: an epoch of the demo's first fold (five years of weekly decisions, 20 stocks), and that
of many seeds at once. Without a GPU the same code runs on the CPU, to see that it works: B is
then 64, and the times say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from data_loaders import load
from engine import Training, WalkForward, backtest
from engine.training.settings import device_here
from strategies import DEQMeanVariance
from strategies.layers import MeanVarianceLayer

EPOCHS = 40


def problems(batch: int, assets: int) -> tuple[Tensor, Tensor]:
    """P (B, n, n) of five factors and q (B, n), of which a cap of five even weights binds some."""
    generator = torch.Generator().manual_seed(0)
    loadings = torch.randn(batch, assets, 5, generator=generator, dtype=torch.float64)
    own = 0.5 + torch.rand(batch, assets, generator=generator, dtype=torch.float64)
    linear = 0.2 * torch.randn(batch, assets, generator=generator, dtype=torch.float64)
    return loadings @ loadings.mT / 5 + torch.diag_embed(own), linear


def solved(given: tuple[Tensor, Tensor], cap: float) -> tuple[Tensor, ...]:
    """The gradients of P and q, on the device of the problem."""
    risk, linear = (part.detach().requires_grad_() for part in given)
    weights = MeanVarianceLayer()(risk, linear, upper=cap)
    pull = torch.linspace(-1, 1, weights.numel(), dtype=weights.dtype, device=weights.device)
    return torch.autograd.grad(weights, (risk, linear), pull.view_as(weights))


def timed(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median seconds, after one call that is not counted."""
    found = []
    for number in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def layer(device: torch.device, batch: int, assets: int) -> None:
    given, cap = problems(batch, assets), 5 / assets
    there = (given[0].to(device), given[1].to(device))
    seconds = timed(lambda: solved(there, cap), device)
    beside = timed(lambda: solved(given, cap), torch.device("cpu"))
    print(
        f"layer, B = {batch}, n = {assets}: {1e3 * seconds:9.1f} ms from {device}, "
        f"{1e3 * beside:9.1f} ms from the CPU",
        flush=True,
    )


def fit(device: str, epochs: int, seeds: int) -> float:
    """Seconds of a backtest that is all training: one fold, and decisions of one week."""
    panel = load("sp500", start="2000-01-01", end="2005-01-18")
    plan = WalkForward(train="5Y", refit="3Y", rebalance="W-FRI")
    training = Training(epochs=epochs, patience=epochs, ensemble=seeds, device=device)
    start = time.perf_counter()
    backtest(DEQMeanVariance(), panel, plan, training=training, progress=False, ledger=False)
    return time.perf_counter() - start


def an_epoch(device: str, seeds: int) -> float:
    """Seconds, from two runs that differ in nothing but the number of epochs."""
    return (fit(device, 1 + EPOCHS, seeds) - fit(device, 1, seeds)) / EPOCHS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="cpu, cuda, cuda:1; by default the GPU, if there is one")
    parser.add_argument("--batch", type=int, help="B; 1024, on the CPU 64")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500], help="n")
    parser.add_argument("--seeds", type=int, default=10)
    asked = parser.parse_args()
    name = asked.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = device_here(name)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    batch = asked.batch or (64 if device.type == "cpu" else 1024)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    print(f"device {device} ({kind}), torch {torch.__version__}, float64")
    for assets in asked.sizes:
        layer(device, batch, assets)
    fit(name, 1, 1)  # what is compiled or loaded once
    one, many = an_epoch(name, 1), an_epoch(name, asked.seeds)
    print(f"an epoch of the demo's first fold: {1e3 * one:.0f} ms")
    print(f"of {asked.seeds} seeds: {1e3 * many:.0f} ms, {many / one:.1f} times one")


if __name__ == "__main__":
    main()
