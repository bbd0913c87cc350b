"""A paper's table, again: E2E-DRO (Costa & Iyengar 2022, arXiv:2206.05134), on the authors' data.

    python examples/replicate_e2e_dro.py --data DIR [--robust] [--solver qpth] [--deq]

Equal weight, predict-then-optimise and the nominal models take a minute; --robust adds the robust
end-to-end ones (ten minutes). --solver qpth trains the nominal model by our solver and by qpth (a
minute). --deq walks DEQMeanVariance over the same data, ten seeds, at 0 and 10 bp (five minutes).

The models, their training and the walk are in benchmarks/e2e_dro.py.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks.e2e_dro import main

    main()
