"""What this machine has for the tests; in CI what is missing is a failure, not a skip."""

import os
from pathlib import Path

CHROMIUM = Path("/usr/bin/chromium")
ALLOW_SKIP = not os.environ.get("CI")
