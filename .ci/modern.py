"""Print what to install for the modern stack: numpy 2, pandas 3, vectorbt 1.2.

The metadata of qpth asks for numpy 1, which its code does not need. So it is left out here and
installed with --no-deps.
"""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
required = project["dependencies"] + project["optional-dependencies"]["dev"]
modern = ["numpy>=2", "pandas>=3", "vectorbt[rust]>=1.2"]
print("\n".join([line for line in required if not line.startswith("qpth")] + modern))  # noqa: T201
