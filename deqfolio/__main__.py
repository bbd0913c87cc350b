"""``python -m deqfolio``."""

import sys

from deqfolio.command_line import main

sys.exit(main())
