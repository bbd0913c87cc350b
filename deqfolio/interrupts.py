"""Ctrl-C at any moment: one line, and exit code 130; likewise SIGTERM, and exit code 143.

``listen`` is called before anything heavy is imported, so this file imports next to nothing. From
then on either ends the process at once and raises nothing: an exception in the middle of an import
or of a destructor may be printed with its traceback, or swallowed. Only in an ``Interruptible``
block, where there is something to clean up, it is the usual KeyboardInterrupt.
"""

import _signal as signal  # type: ignore[import-not-found]  # without its enums: at once
import atexit
import os
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STOPPED = 128  # the convention of shells: this and the number of the signal
PATIENCE = 15  # seconds that an Interruptible block may take to clean up


_interrupted = 0  # the signal by which an Interruptible block ended


def listen() -> None:
    """Handle both until the process has ended; what is ignored, as by nohup, stays so."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return  # a worker process that imports the main program: its parent handles Ctrl-C
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
        sys.unraisablehook = _unraisable
        atexit.register(_finish)  # registered first, so called last


class Interruptible:
    """A block that either signal ends by one KeyboardInterrupt, one ``line`` and its exit code."""

    def __init__(self, line: str):
        self.line, self.stopped = line, 0

    def __enter__(self) -> None:
        self.listening = [each for each in SIGNALS if signal.getsignal(each) is _stop]
        for each in self.listening:
            signal.signal(each, self._interrupt)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for each in self.listening if not self.stopped else ():
            signal.signal(each, _stop)
        if kind is KeyboardInterrupt and not self.stopped:  # Python's own handler raised it
            sys.stderr.write(f"\n{self.line}\n")
            self.stopped = signal.SIGINT
        if self.stopped:  # even where the exception was swallowed, or became another one
            global _interrupted
            _interrupted = self.stopped
            raise SystemExit(STOPPED + self.stopped)

    def _interrupt(self, number: int, *_: object) -> None:
        for each in self.listening:
            signal.signal(each, signal.SIG_IGN)
        self.stopped = number
        os.write(2, f"\n{self.line}\n".encode())
        if hasattr(signal, "setitimer"):  # not on Windows; something may swallow the exception
            signal.signal(signal.SIGALRM, lambda *_: _end(number))
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        raise KeyboardInterrupt


def _finish() -> None:
    """The last exit handler: what is left is Python's own shutdown. Where the interrupt fell into
    an ``exec``, CPython would end by the signal, although the exception was handled.
    """
    for each in SIGNALS:
        if signal.getsignal(each) != signal.SIG_DFL:
            signal.signal(each, signal.SIG_IGN)
    if _interrupted:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(STOPPED + _interrupted)


def _stop(number: int, *_: object) -> None:
    try:
        os.write(2, b"\nstopped\n")
    finally:
        _end(number)


def _end(number: int = signal.SIGINT) -> None:
    """End this process and its workers, at once."""
    multiprocessing = sys.modules.get("multiprocessing")  # perhaps only half imported
    try:
        for child in getattr(multiprocessing, "active_children", list)():
            child.kill()
    finally:
        os._exit(STOPPED + number)


def _unraisable(failure: "sys.UnraisableHookArgs") -> None:
    """Python can only print what is raised in a destructor; a KeyboardInterrupt ends there."""
    if issubclass(failure.exc_type, KeyboardInterrupt):
        _end()
    sys.__unraisablehook__(failure)
