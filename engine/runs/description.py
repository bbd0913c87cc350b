"""The description of a run, as JSON can hold it: what reproduces it, and tells it apart."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from data_loaders import Panel, quality
from data_loaders.plugins import shown_module
from engine.accounting.costs import Costs
from engine.accounting.risk_free import RiskFree, own_risk_free
from engine.planning.decision_dates import FUNCTION
from engine.planning.walk_forward import WalkForward
from engine.runs.experiment import describe_costs
from engine.training.settings import Training
from strategies.base import Strategy, learned_inside, with_inner


def run_settings(
    panel: Panel,
    plan: WalkForward,
    costs: Costs,
    training: Training,
    risk_free: RiskFree | None = None,
) -> dict:
    """What reproduces the run, as JSON can hold it.

    Args:
        risk_free: the costs' cash rate by default.
    """
    risk_free = risk_free or RiskFree(costs.cash_rate)
    trained = asdict(training) | {"loss": repr(training.loss), "first": repr(training.first)}
    if training.first is None:  # as in runs of before
        del trained["first"]
    decisions = {}
    if callable(plan.rebalance) or FUNCTION.fullmatch(str(plan.rebalance)):
        # The name of a function says too little: the rows that it chooses are hashed.
        rows = plan.decisions(panel.dates)
        decisions = {"decisions": hashlib.sha256(rows.tobytes()).hexdigest()}
    return {
        "panel": {
            "source": panel.source,
            "fingerprint": panel.fingerprint,
            "snapshots": dict(panel.snapshots),
            "quality": quality.check(panel).plain,
            "caveats": list(panel.caveats),
            "start": str(panel.dates[0].date()),
            "end": str(panel.dates[-1].date()),
            "rows": len(panel),
            "assets": list(panel.assets),
            **({} if panel.benchmark is None else {"benchmark": panel.benchmark.name}),
        },
        "universe": panel.has_universe,  # whether an asset can trade and be no member
        "plan": plan.described(),
        **decisions,
        "costs": describe_costs(costs),
        "training": _plain(trained),
        "risk_free": risk_free.described(),
        "seed": training.seed,
        "periods_per_year": panel.periods_per_year,
        "versions": dict(installed_versions()),
    }


def identity(settings: dict, strategies: Mapping[str, Strategy]) -> dict:
    """What tells a run directory apart from that of another run."""
    parts = {name: settings[name] for name in ("panel", "plan", "costs", "training")}
    usual = {"holiday": None, "fill": "close", "unpriced": "wait"}  # which older plans do not name
    parts["plan"] = {
        name: value
        for name, value in parts["plan"].items()
        if name not in usual or value != usual[name]
    }
    if "decisions" in settings:
        parts["decisions"] = settings["decisions"]
    if (risk_free := own_risk_free(settings)) is not None:
        parts["risk_free"] = risk_free
    return {**parts, "strategies": {name: described(each) for name, each in strategies.items()}}


def described(strategy: Strategy) -> dict:
    """A strategy as JSON can hold it."""
    states = {each.state_hash for each in with_inner(strategy) if hasattr(each, "state_hash")}
    return {
        "class": f"{shown_module(type(strategy).__module__)}:{type(strategy).__name__}",
        "learned": learned_inside(strategy) is not None,
        "parameters": _plain(strategy.get_params()),
        "code": _source_hash(tuple({type(each): None for each in with_inner(strategy)})),
        **({"states": sorted(states)} if states else {}),  # of the files that it starts from
    }


@functools.cache
def _source_hash(classes: tuple[type[Strategy], ...]) -> str:
    """sha256 of the files that classes and their parents are written in, except the contract."""
    modules = {parent.__module__ for cls in classes for parent in cls.__mro__}
    written = {m for m in modules if m.partition(".")[0] not in ("sklearn", "builtins", "abc")}
    files = {getattr(sys.modules.get(m), "__file__", None) for m in written - {"strategies.base"}}
    written_down = [Path(file) for file in sorted(filter(None, files))]
    content = [file.read_bytes() for file in written_down if file.is_file()]  # not "<stdin>"
    return hashlib.sha256(b"".join(content)).hexdigest() if content else ""


def _plain(parameters: dict) -> dict:
    """Parameters as JSON can hold them; anything else by its repr."""
    found = {}
    for name, value in parameters.items():
        try:
            found[name] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError):
            found[name] = repr(value)
    return found


@functools.cache
def installed_versions() -> dict[str, str]:
    """Of Python and of the packages that numbers may depend on."""
    packages = ("deqfolio", "torch", "numpy", "pandas", "scikit-learn", "vectorbt", "qpth", "numba")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a source tree that was never installed
    return found
