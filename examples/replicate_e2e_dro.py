"""A paper's table, again: E2E-DRO (Costa & Iyengar 2022, arXiv:2206.05134), on the authors' data.

    python examples/replicate_e2e_dro.py --data DIR            equal weight, predict-then-optimise,
                                                               nominal models: about a minute
    python examples/replicate_e2e_dro.py --data DIR --robust   the robust ones too: ten minutes
    python examples/replicate_e2e_dro.py --data DIR --solver qpth    side by side with qpth
    python examples/replicate_e2e_dro.py --data DIR --deq      DEQMeanVariance, ten seeds

The models, their training and the walk are in benchmarks/e2e_dro.py.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks.e2e_dro import main

    main()
