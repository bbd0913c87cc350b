"""The program: ``deqfolio``, or ``python -m deqfolio``."""

import gc
import sys

from deqfolio.interrupts import listen

listen()  # before anything heavy is imported


def program() -> int:
    """Import the command line, for a second or so, and run it."""
    gc.set_threshold(100_000, 50, 100)  # looking for cycles more often takes a run 4% longer
    from deqfolio.command_line import main

    return main()


if __name__ == "__main__":
    sys.exit(program())
