"""Before and after a training: modules together against each alone, our optimiser against qpth."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from engine.training.seed_run import SeedRun
from strategies.base import cross_check, record_solves

LOG = logging.getLogger("deqfolio")


def check_together(group: Sequence[SeedRun]) -> None:
    """On a few samples: modules get together what each gets alone, or are trained alone."""
    going = [run for run in group if run.going]
    if len(going) < 2:
        return
    few = {name: values[:4] for name, values in going[0].samples.inputs.items()}
    modules, sizes = [run.module.eval() for run in going], [4] * len(going)
    try:
        with torch.no_grad():
            expected = torch.cat([module(few) for module in modules])
            many = {name: torch.cat([values] * len(going)) for name, values in few.items()}
            found, _ = type(modules[0]).together(modules, many, sizes)  # type: ignore[attr-defined]
        gap = float((found - expected).abs().max())
    except Exception as error:  # of one of them, or of all: it will show in training
        LOG.debug("several modules were not compared with each alone: %s", error)
        return
    if not gap < 1e-8:
        kind = type(modules[0]).__name__
        LOG.warning("%s.together gives weights %.1e from those of each alone", kind, gap)
        for run in going:
            run.alone = True


def check_optimiser(group: Sequence[SeedRun], when: str, chosen: slice) -> None:
    """Hold the optimisations of a few samples against qpth."""
    for run in group:
        if run.error is not None:
            continue
        true = run.samples.rows_until(len(run.samples))
        inputs = {name: values[chosen] for name, values in true.items()}
        try:
            with record_solves(into=run.record), torch.no_grad(), cross_check() as check:
                run.module(inputs)
        except Exception as error:
            run.fail(error)
            continue
        found = {"samples": check.samples, "weights": check.weights, "gradients": check.gradients}
        run.checks.append({"when": when, **found})
