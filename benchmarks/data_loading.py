"""Loading a large panel side by side with plain pandas: time, and peak memory.

    python benchmarks/data_loading.py [--quick] [--more] [--folder /tmp]

3,000 assets by 25 years of daily prices (6,300 rows, 151 MB as float64). Each case runs in its own
process, best of three; memory is the peak of the process (VmHWM) above what it held after its
imports. pandas gives a frame, ``load`` an immutable panel, checked and with exact floats: pandas
reads text exactly only with float_precision="round_trip".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

CASES = {
    "pandas.read_parquet": ("prices.parquet", "pandas.read_parquet(path)"),
    "load, parquet": ("prices.parquet", "load(path)"),
    "pandas.read_csv": ("prices.csv", "pandas.read_csv(path, index_col=0, parse_dates=[0])"),
    "pandas.read_csv, exact": (
        "prices.csv",
        "pandas.read_csv(path, index_col=0, parse_dates=[0], float_precision='round_trip')",
    ),
    "load, csv": ("prices.csv", "load(path)"),
}
MORE = {
    "load, minute bars": ("minutes.parquet", "load(path)"),
    "load, a file per asset": ("assets", "load(path)"),
}
LIMITS = {  # seconds, times the array
    "load, parquet": (2.0, 3.0),
    "load, csv": (15.0, 3.0),
    "load, minute bars": (5.0, 3.0),
    "load, a file per asset": (60.0, 20.0),
}

MEASURE = """
import json, re, sys, time
import pandas, pyarrow.csv, pyarrow.parquet
from data_loaders import load
path = sys.argv[1]
def memory(which):
    return int(re.search(which + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
before = memory("VmRSS")
start = time.perf_counter()
result = {expression}
seconds = time.perf_counter() - start
peak = memory("VmHWM") - before
until = None
if hasattr(result, "until"):
    result.returns
    dates = result.dates[:: max(1, len(result) // 1000)]
    start = time.perf_counter()
    for date in dates:
        result.until(date)
    until = (time.perf_counter() - start) / len(dates)
size = (result.prices if until else result).size * 8
print(json.dumps([seconds, peak, until, size]))
"""


def write(folder: Path, rows: int, assets: int) -> None:
    moves = np.random.default_rng(0).normal(0, 0.01, (rows, assets))
    prices = pd.DataFrame(
        100 * np.exp(moves.cumsum(axis=0)),
        index=pd.bdate_range("2000-01-03", periods=rows, name="date"),
        columns=[f"A{i:04}" for i in range(assets)],
    )
    prices.to_parquet(folder / "prices.parquet")
    prices.to_csv(folder / "prices.csv")


def write_more(folder: Path, rows: int, assets: int) -> None:
    """Minute bars of 30 assets, and a CSV with the bars of one asset for each asset."""
    minutes = rows * 1_000_000 // 6300 if assets > 300 else 100_000
    moves = np.random.default_rng(1).normal(0, 3e-4, (minutes, 30))
    index = pd.date_range("2015-01-01", periods=minutes, freq="min", name="date")
    bars = pd.DataFrame(100 * np.exp(moves.cumsum(axis=0)), index, [f"M{i}" for i in range(30)])
    bars.to_parquet(folder / "minutes.parquet")
    close = 100 * np.exp(np.random.default_rng(2).normal(0, 0.01, rows).cumsum())
    days = pd.bdate_range("2000-01-03", periods=rows, name="Date")
    frame = pd.DataFrame({"Open": close, "High": close * 1.01, "Low": close * 0.99}, days)
    frame = frame.assign(**{"Close": close, "Adj Close": close * 0.9, "Volume": 1000.0})
    text = frame.round(6).to_csv()
    (folder / "assets").mkdir()
    for i in range(assets):
        (folder / "assets" / f"A{i:04}.csv").write_text(text)


def measure(path: Path, expression: str) -> list[float]:
    words = [sys.executable, "-c", MEASURE.replace("{expression}", expression), str(path)]
    root = Path(__file__).parent.parent
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the assets, once")
    parser.add_argument("--more", action="store_true", help="minute bars, and a file per asset too")
    parser.add_argument("--folder", type=Path, help="for the files; default: a temporary one")
    arguments = parser.parse_args()
    rows, assets = 6300, 300 if arguments.quick else 3000
    size = rows * assets * 8
    found = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        write(Path(folder), rows, assets)
        cases = CASES
        if arguments.more:
            write_more(Path(folder), rows, assets)
            cases = CASES | MORE
        print(f"{rows} rows, {assets} assets: {size / 1e6:.0f} MB as an array\n")
        for _ in range(1 if arguments.quick else 3):
            for name, (file, expression) in cases.items():
                one = measure(Path(folder) / file, expression)
                found[name] = min(found.get(name, one), one)
    print(f"{'':24}{'s':>8}{'/ pandas':>10}{'peak / array':>14}{'until, us':>11}   limit")
    for name, (seconds, peak, until, array) in found.items():
        plain = found["pandas.read_csv" if "csv" in name else "pandas.read_parquet"][0]
        view = f"{until * 1e6:.0f}" if until else ""
        limit = "{:g} s, {:g} arrays".format(*LIMITS[name]) if name in LIMITS else ""
        ratio = f"{seconds / plain:.2f}" if name in CASES else ""
        memory = f"{peak / array:.2f}"
        print(f"{name:24}{seconds:8.2f}{ratio:>10}{memory:>14}{view:>11}   {limit}".rstrip())


if __name__ == "__main__":
    main()
