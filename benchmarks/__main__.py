"""Run every benchmark, one after the other: make bench."""

import runpy
import sys
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
    print(f"\n{path.stem.replace('_', ' ')}", flush=True)
    sys.argv = [str(path), *sys.argv[1:]]
    runpy.run_path(str(path), run_name="__main__")
