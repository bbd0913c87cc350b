"""The kernels on disk: an edit of any file behind an entry compiles it anew."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

import strategies.layers.optimisation.active_set.compilation as compilation
from strategies.layers import MeanVarianceLayer
from strategies.layers.optimisation.active_set.solver import compile_gradients, kernels

HELPER = """
from compilation import helper
FACTOR = 2.0

@helper
def scaled(x):
    return FACTOR * x
"""
ENTRY = """
from compilation import entry
from helpers import scaled

@entry
def double(sources):
    def double(x):
        {mention}
        return scaled(x)

    return double

print(double(1.0))
"""


def test_an_edit_of_a_helper_reaches_the_kernels_that_lie_on_disk(tmp_path):
    def run(name):
        done = subprocess.run(
            [sys.executable, name],
            cwd=tmp_path,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        return float(done.stdout), len(list((tmp_path / "cache").rglob("*.nbc")))

    shutil.copy(compilation.__file__, tmp_path)
    (tmp_path / "helpers.py").write_text(HELPER)
    (tmp_path / "entry.py").write_text(ENTRY.format(mention="assert sources"))
    (tmp_path / "plain.py").write_text(ENTRY.format(mention="pass"))
    assert run("entry.py") == (2.0, 1)
    assert run("entry.py") == (2.0, 1)  # from the disk
    assert run("plain.py") == (2.0, 2)
    (tmp_path / "helpers.py").write_text(HELPER.replace("2.0", "3.0"))
    assert run("plain.py")[0] == 2.0  # Numba alone does not notice
    assert run("entry.py")[0] == 3.0


def test_every_entry_mentions_the_hash():
    kernels = Path(compilation.__file__).with_name("kernels.py").read_text()
    assert kernels.count("@entry") == kernels.count("assert sources") == 2


def test_gradients_are_compiled_ahead_for_every_call():
    compile_gradients()
    risk = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1).requires_grad_()
    limits = {"holdings": torch.zeros(3), "turnover_cost": 0.1, "gross_limit": 1.5, "lower": -0.5}
    for each in {}, limits:
        MeanVarianceLayer()(risk, torch.ones(2, 3), **each).sum().backward()
    assert len(kernels().differentiate_batch.overloads) == 1
