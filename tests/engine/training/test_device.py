"""Training and deciding on a GPU, on a machine that has none: see ``elsewhere.py``."""

import numpy as np
import pandas as pd
import pytest
import torch
from elsewhere import DEVICE, elsewhere
from markets import random_walks

import engine.training.settings
from deqfolio import main
from engine import Costs, Training, WalkForward, backtest
from engine.training.settings import device_here
from strategies import DEQMeanVariance
from strategies.layers import Anderson, Broyden, FactorRisk, MeanVarianceLayer, Picard
from strategies.layers.equilibrium.deq_encoder import DEQEncoder
from strategies.layers.optimisation.consecutive import weights_on_dates
from strategies.layers.solve_record import record_solves


def problem(assets: int = 12, batch: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(batch, 40, assets, generator=generator, dtype=torch.float64)
    q = torch.randn(batch, assets, generator=generator, dtype=torch.float64)
    return root.mT @ root / 40, 0.3 * q


LIMITS = {
    "a cap": {"upper": 0.3},
    "groups": {
        "upper": 0.5,
        "rows": torch.tensor([[1.0] * 4 + [0.0] * 8, [0.0] * 4 + [1.0] * 4 + [0.0] * 4]),
        "row_upper": torch.tensor([0.3, 0.2]),
    },
    "turnover": {"holdings": torch.full((12,), 1 / 12), "turnover_cost": 0.05},
    "130/30": {"lower": -1.0, "gross_limit": 1.6},
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("form", ["dense", "factor"])
def test_the_optimiser_gives_the_kernels_weights_and_gradients(form, limits):
    P, q = problem()
    pull = torch.linspace(-1, 1, q.numel(), dtype=torch.float64).view_as(q)

    def solved(device: torch.device) -> list[torch.Tensor]:
        if form == "dense":
            parts = [P.to(device).detach().requires_grad_()]
            risk: torch.Tensor | FactorRisk = parts[0]
        else:
            both = P[:, :, :3], P.diagonal(dim1=1, dim2=2)
            parts = [part.to(device).detach().requires_grad_() for part in both]
            risk = FactorRisk(*parts)
        parts.append(q.to(device).detach().requires_grad_())
        weights = MeanVarianceLayer()(risk, parts[-1], **limits)
        weights.backward(pull.to(device))
        return [weights.detach(), *(part.grad for part in parts)]

    expected = solved(torch.device("cpu"))
    with elsewhere():
        found = solved(DEVICE)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one.here, two, atol=1e-10, rtol=1e-10)


def test_the_optimiser_waits_for_copies_alone():
    P, q = problem(assets=30)
    with elsewhere() as looks, record_solves() as record:
        risk, linear = P.to(DEVICE), q.to(DEVICE)
        looks.clear()
        MeanVarianceLayer()(risk, linear, upper=0.1)
    assert record.tallies["mean-variance"].most_steps >= 3  # rounds
    assert sum(looks.values()) <= 12


@pytest.mark.parametrize("form", ["dense", "factor"])
def test_consecutive_dates_wait_for_the_host_once(form):
    looked = []
    for dates in (6, 24):
        P, q = problem(batch=dates)
        drift, cost = 1 + 0.01 * q, torch.full((dates,), 2.0, dtype=torch.float64)
        caps = torch.full((12,), 0.3, dtype=torch.float64)

        def solved(device, P=P, q=q, drift=drift, cost=cost, caps=caps):
            linear = q.to(device).detach().requires_grad_()
            risk = P.to(device)
            if form == "factor":
                risk = FactorRisk(risk[:, :, :3], risk.diagonal(dim1=1, dim2=2))
            weights = weights_on_dates(
                MeanVarianceLayer(), risk, linear, cost.to(device), drift.to(device),
                upper=caps.to(device),
            )  # fmt: skip
            weights.square().sum().backward()
            return weights.detach(), linear.grad

        expected = solved(torch.device("cpu"))
        with elsewhere() as looks:
            found = solved(DEVICE)
            looked.append(sum(looks.values()))
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one.here, two, atol=1e-12, rtol=0)
    assert looked[0] == looked[1] <= 18  # copies there and back, however many dates


TIGHT = {"rtol": 1e-12, "max_steps": 3000}  # the kernels of the CPU stop at other iterates
SOLVERS = [Picard(**TIGHT), Anderson(**TIGHT), Broyden(**TIGHT)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("cell", ["mean_field", "graph", "pairs", "monotone"])
def test_the_equilibrium_is_the_same_and_looks_at_most_once_a_step(cell, solver):
    torch.manual_seed(0)
    assets = 5 if cell == "pairs" else None
    encoder = DEQEncoder(6, 8, cell=cell, assets=assets, solver=solver).double()
    x = torch.randn(16, 5, 6, dtype=torch.float64)
    x[::2] *= 5  # samples end at different steps
    solution = encoder.equilibrium(x)
    solution.value.square().sum().backward()
    expected = [solution.value.detach(), *(p.grad.clone() for p in encoder.parameters())]
    encoder.zero_grad()
    with elsewhere() as looks, record_solves() as record:
        encoder, there = encoder.to(DEVICE), x.to(DEVICE)
        looks.clear()
        solution = encoder.equilibrium(there)
        forward = looks["tolist"]
        solution.value.square().sum().backward()
        backward = looks["tolist"] - forward
    found = [solution.value.detach(), *(p.grad for p in encoder.parameters())]
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one.here, two, atol=1e-10, rtol=1e-10)
    assert forward <= record.tallies["fixed point"].most_steps + 1  # and one for the input
    assert backward <= record.tallies["adjoint"].most_steps


@pytest.fixture
def there(monkeypatch):
    monkeypatch.setattr(engine.training.settings, "DEVICES", ("cpu", "cuda", DEVICE.type))
    return DEVICE.type


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # ours are not meta
def test_a_backtest_on_a_device_is_that_on_the_cpu(there):
    """All of it: training with impact and noise-free growth, the check by qpth, decisions."""
    panel, plan = random_walks(500, 4), WalkForward(train="18M", refit="9M", rebalance="ME")
    volume = pd.DataFrame(1e6, index=panel.dates, columns=panel.assets)
    panel = type(panel)(panel.prices, {"volume": volume})
    costs = Costs(0.001, impact=0.1, borrow=0.02, capital=1e6)
    quick = {"epochs": 2, "block": 10, "learning_rate": 0.01, "validation": 0.3}
    strategy = DEQMeanVariance(lookback=64, hidden=2, cap=0.5, features=("lags:2",))

    def run(**rest):
        training = Training(**quick, **rest)
        return backtest(strategy, panel, plan, costs, training, progress=False)["DEQMeanVariance"]

    expected = run()
    with elsewhere():
        found = run(device=there)
    np.testing.assert_allclose(found.targets, expected.targets, atol=1e-8)
    assert type(next(iter(found.states.values()))["heads.bias"]) is torch.Tensor
    columns = ["loss", "validation_loss", "gradient_norm"]
    np.testing.assert_allclose(found.training[columns], expected.training[columns], atol=1e-8)
    assert found.settings["training"]["device"] == there


def test_mixed_devices_are_noticed():
    """What the tests above rest on."""
    with elsewhere():
        x = torch.ones(3, device=DEVICE)
        with pytest.raises(RuntimeError, match="mixes devices"):
            x + torch.ones(3)
        assert (x + torch.tensor(1.0)).sum().item() == 6


def test_a_gpu_that_is_not_there(monkeypatch, tmp_path, capsys):
    for name in ("gpu", "cuda:x", "cpu:0", "mps", 3):
        with pytest.raises(ValueError, match="device is 'cpu', 'cuda' or 'cuda:0'"):
            Training(device=name)
    assert Training(device="cuda:1").device == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="leave device out to train on the CPU"):
        device_here("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="this machine has 1 GPUs"):
        device_here("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    random_walks(500, 4).prices.to_csv("prices.csv")
    words = "backtest --data prices.csv --strategy DEQMeanVariance --train 18M --rebalance ME"
    more = ["--set", "DEQMeanVariance.cap=0.5", "--set", "DEQMeanVariance.lookback=64"]
    assert main([*words.split(), *more, "--set", "training.device=cuda"]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: device='cuda': ")
    assert main([*words.split(), *more, "--set", "training.device=gpu"]) == 1
    assert "got 'gpu'" in capsys.readouterr().err
