"""Ctrl-C at any moment: one line, and exit code 130.

``listen`` is called before anything heavy is imported, so this file imports next to nothing. From
then on Ctrl-C ends the process at once and raises nothing: an exception in the middle of an import
or of a destructor may be printed with its traceback, or swallowed. Only in an ``Interruptible``
block, where there is something to clean up, Ctrl-C is the usual KeyboardInterrupt.
"""

import _signal as signal  # type: ignore[import-not-found]  # without its enums: at once
import atexit
import os
import sys

STOPPED = 130  # the convention of shells: 128 + SIGINT
PATIENCE = 15  # seconds that an Interruptible block may take to clean up


_interrupted = False  # whether an Interruptible block ended by Ctrl-C


def listen() -> None:
    """Handle Ctrl-C until the process has ended; where it is ignored, as by nohup, it stays so."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return  # a worker process that imports the main program: its parent handles Ctrl-C
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
        sys.unraisablehook = _unraisable
        atexit.register(_finish)  # registered first, so called last


class Interruptible:
    """A block that Ctrl-C ends by one KeyboardInterrupt, one ``line`` and exit code 130."""

    def __init__(self, line: str):
        self.line, self.stopped = line, False

    def __enter__(self) -> None:
        self.listening = signal.getsignal(signal.SIGINT) is _stop
        if self.listening:
            signal.signal(signal.SIGINT, self._interrupt)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.listening and not self.stopped:
            signal.signal(signal.SIGINT, _stop)
        if kind is KeyboardInterrupt and not self.stopped:  # Python's own handler raised it
            sys.stderr.write(f"\n{self.line}\n")
            self.stopped = True
        if self.stopped:  # even where the exception was swallowed, or became another one
            global _interrupted
            _interrupted = True
            raise SystemExit(STOPPED)

    def _interrupt(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.stopped = True
        os.write(2, f"\n{self.line}\n".encode())
        if hasattr(signal, "setitimer"):  # not on Windows; something may swallow the exception
            signal.signal(signal.SIGALRM, _end)
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        raise KeyboardInterrupt


def _finish() -> None:
    """The last exit handler: what is left is Python's own shutdown.

    Where the interrupt fell into an ``exec``, as of a dataclass that is being imported, CPython
    would end by the signal, although the exception was handled.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _interrupted:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STOPPED)


def _stop(*_: object) -> None:
    try:
        os.write(2, b"\nstopped\n")
    finally:
        _end()


def _end(*_: object) -> None:
    """End this process and its workers, at once."""
    multiprocessing = sys.modules.get("multiprocessing")  # perhaps only half imported
    try:
        for child in getattr(multiprocessing, "active_children", list)():
            child.kill()
    finally:
        os._exit(STOPPED)


def _unraisable(failure: "sys.UnraisableHookArgs") -> None:
    """Python can only print what is raised in a destructor; a KeyboardInterrupt ends there."""
    if issubclass(failure.exc_type, KeyboardInterrupt):
        _end()
    sys.__unraisablehook__(failure)
