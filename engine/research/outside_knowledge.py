"""What a strategy knows besides the history it is given: captured data, files, the engine's own.

None of this is needed to decide from a history, and each of it can hold the future.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.base import BaseEstimator

from data_loaders import Panel
from engine.research.altered_markets import BARS
from strategies.base import Strategy, with_inner

OURS = ("strategies.", "sklearn.", "builtins", "abc", "torch.")  # classes that are not looked into
MOST = 50_000_000  # bytes of a file that is searched for prices
KNOWS = 0.5  # rank correlation with the next return that no honest feature has
SAMPLE = 200  # prices that are looked for
CODE = (".py", ".pyc", ".so", ".pyd")
SYSTEM = ("/proc/", "/sys/", "/dev/")
EVENTS = ("open", "sqlite3.connect", "socket.connect", "subprocess.Popen", "os.system")
REACHING = ("sys._getframe", "sys._current_frames", "gc.get_objects", "gc.get_referrers")
HELPERS = ("inspect.py", "traceback.py")  # which look at frames for their caller


class Place(NamedTuple):
    """Something that the code of a strategy refers to."""

    name: str
    value: Any
    owner: MutableMapping[str, Any] | None  # the globals of its module


def own_classes(strategy: Strategy) -> list[type]:
    """The classes of a strategy and of those inside it that are not the library's."""
    found = {cls: None for each in with_inner(strategy) for cls in type(each).__mro__}
    return [cls for cls in found if not f"{cls.__module__}.".startswith(OURS)]


def _functions(cls: type) -> Iterator[FunctionType]:
    for value in vars(cls).values():
        value = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if isinstance(value, FunctionType):
            yield value


def _names(code: CodeType) -> set[str]:
    inner = (each for each in code.co_consts if isinstance(each, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def places(strategy: Strategy) -> list[Place]:
    """What its code refers to: attributes of its classes and of itself, closures, defaults and
    globals, those of the functions and classes of the same module included."""
    found: list[Place] = []
    classes = own_classes(strategy)
    functions = [function for cls in classes for function in _functions(cls)]
    for cls in classes:
        found += [Place(f"{cls.__name__}.{name}", value, None) for name, value in vars(cls).items()]
    for each in with_inner(strategy):
        if type(each) in classes:
            found += [Place(f"self.{name}", value, None) for name, value in vars(each).items()]
    seen: set[FunctionType] = set()
    while functions:
        function = functions.pop()
        if function in seen:
            continue
        seen.add(function)
        where = function.__qualname__
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # not set yet
                found.append(Place(f"a variable around {where}", cell.cell_contents, None))
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            found.append(Place(f"a default of {where}", value, None))
        for name in _names(function.__code__) & set(function.__globals__):
            value = function.__globals__[name]
            beside = getattr(value, "__module__", None) == function.__module__
            if isinstance(value, type):
                functions += _functions(value) if beside else ()
            elif isinstance(value, FunctionType) and beside:
                functions.append(value)
            else:
                found.append(Place(f"the global {name}", value, function.__globals__))
    return found


class CodeMemory:
    """What a strategy's code keeps in globals, class attributes and caches, as it is now.

    ``restore`` brings that back, so that several runs begin alike.
    """

    def __init__(self, strategy: Strategy):
        self.places = places(strategy)
        self.caches = [each.value for each in self.places if hasattr(each.value, "cache_clear")]
        self.caches += [
            value
            for cls in own_classes(strategy)
            for value in vars(sys.modules.get(cls.__module__, cls)).values()
            if hasattr(value, "cache_clear") and hasattr(value, "__wrapped__")
        ]
        kept = [each for each in self.places if isinstance(each.value, dict | list | set | deque)]
        self.copies = [(each.value, each.value.copy()) for each in kept]

    def restore(self) -> None:
        for each in self.caches:
            each.cache_clear()
        for container, copy in self.copies:
            if isinstance(container, dict | set):
                container.clear()
                container.update(copy)
            else:
                container.clear()
                container.extend(copy)
        for name, value, owner in self.places:
            if owner is not None:
                owner[name.removeprefix("the global ")] = value


class KnownPrices:
    """Prices and returns after the first decision, which nothing that a strategy has may hold."""

    def __init__(self, panel: Panel, first: pd.Timestamp):
        later = panel.since(first)
        self.first, self.last = first, panel.dates[-1]
        samples = []
        for frame in (later.prices, later.returns.iloc[1:]):
            values = frame.to_numpy()
            values = np.unique(values[np.isfinite(values) & (values != 0)])
            chosen = np.linspace(0, len(values) - 1, min(len(values), SAMPLE)).astype(int)
            samples.append(values[chosen])
        self.samples = samples

    def in_values(self, values: np.ndarray) -> bool:
        """Whether most of them are among these numbers."""
        return any(len(own) > 20 and np.isin(own, values).mean() > 0.5 for own in self.samples)

    def in_file(self, path: Path) -> bool:
        """Whether most of the prices are in the file, as text or as binary numbers."""
        try:
            if path.stat().st_size > MOST:
                return False
            content = path.read_bytes()
        except OSError:
            return False
        own = self.samples[0]
        found = [repr(float(x)).encode() in content or x.tobytes() in content for x in own]
        return len(own) > 20 and float(np.mean(found)) > 0.5

    def dated(self, value: Any) -> bool:
        """Whether it is a table by dates, some of them after the first decision."""
        index = getattr(value, "dates", getattr(value, "index", None))
        if not isinstance(index, pd.DatetimeIndex):
            return False
        return bool(((index > self.first) & (index <= self.last)).any())


def _numbers(value: Any, depth: int = 3) -> np.ndarray:
    """All numbers in a value, flat."""
    if isinstance(value, Panel):
        value = value.prices
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, pd.DataFrame):
        value = value.select_dtypes("number").to_numpy()
    if isinstance(value, pd.Series | pd.Index):
        value = value.to_numpy()
    if isinstance(value, np.ndarray):
        return value.ravel().astype(float) if value.dtype.kind in "fiu" else np.empty(0)
    if isinstance(value, float):
        return np.array([value])
    if not depth:
        return np.empty(0)
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset | deque):
        parts = [_numbers(each, depth - 1) for each in value]
        return np.concatenate(parts) if parts else np.empty(0)
    return np.empty(0)


def captured_prices(strategy: Strategy, known: KnownPrices) -> list[str]:
    """Where its code holds the prices or returns that it is judged on."""
    return [each.name for each in places(strategy) if known.in_values(_numbers(each.value))]


def captured_models(strategy: Strategy, known: KnownPrices) -> list[str]:
    """Where its code holds models that are fitted already, and tables of later dates."""
    found = []
    for each in places(strategy):
        value = each.value
        if isinstance(value, BaseEstimator) and not isinstance(value, Strategy):
            ends = [name for name in vars(value) if name.endswith("_") and name[0] != "_"]
            if ends:
                found.append(f"{each.name}, a fitted {type(value).__name__}")
        elif isinstance(value, torch.nn.Module) and next(value.parameters(), None) is not None:
            found.append(f"{each.name}, a {type(value).__name__}")
        elif known.dated(value):
            found.append(f"{each.name}, a table of dates up to {known.last:%Y-%m-%d} or later")
    return found


class Watch:
    """What a strategy's code opened while it fitted and decided, and whether it looked at frames
    or at all objects of the process."""

    def __init__(self, strategy: Strategy):
        functions = [each for cls in own_classes(strategy) for each in _functions(cls)]
        self.code = {function.__code__.co_filename for function in functions}
        self.opened: dict[str, None] = {}
        self.reached: dict[str, None] = {}
        self.busy = False

    def see(self, event: str, arguments: tuple, frame: FrameType | None) -> None:
        if event in REACHING:
            while frame is not None and frame.f_code.co_filename.endswith(HELPERS):
                frame = frame.f_back
            if frame is not None and frame.f_code.co_filename in self.code:
                self.reached[event] = None
        elif self._is_ours(frame):
            what = arguments[-1] if event == "socket.connect" else arguments[0]
            what = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
            if event != "open" or not (
                isinstance(arguments[0], int) or what.endswith(CODE) or what.startswith(SYSTEM)
            ):
                self.opened[what] = None

    def _is_ours(self, frame: FrameType | None) -> bool:
        """Whether the strategy's code is what runs, and not an import."""
        found = False
        while frame is not None:
            file = frame.f_code.co_filename
            if "importlib" in file:
                return False
            found = found or file in self.code
            frame = frame.f_back
        return found


_watching: list[Watch] = []  # a hook cannot be removed, so there is one, which looks here
_hooked = False


def _hook(event: str, arguments: tuple) -> None:
    if _watching and (event in EVENTS or event in REACHING):
        watch = _watching[-1]
        if watch.code and not watch.busy:
            watch.busy = True  # the next line is an event itself
            try:
                watch.see(event, arguments, sys._getframe(1))
            finally:
                watch.busy = False


@contextmanager
def watched(strategy: Strategy) -> Iterator[Watch]:
    """Inside the block, what the strategy's code does is noted in the ``Watch``."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    watch = Watch(strategy)
    _watching.append(watch)
    try:
        yield watch
    finally:
        _watching.remove(watch)


def check_features(panel: Panel) -> None:
    """AssertionError if a feature tells the next return, or what another one will be."""
    moves = panel.returns.shift(-1)
    own = {**panel.asset_features, "the price": panel.prices}
    for name, frame in panel.asset_features.items():
        if name in BARS:
            continue
        for known in (frame, frame / panel.prices):
            _knows_nothing(f"asset feature {name!r}", known.to_numpy(), moves.to_numpy())
        for other, values in own.items():
            _not_the_next(f"asset feature {name!r}", frame.to_numpy(), other, values.to_numpy())
    market = panel.market_features
    for name in market:
        column = market[name].to_numpy()
        _knows_nothing(f"market feature {name!r}", column, moves.mean(axis=1).to_numpy())
        for other in market:
            following = market[other].to_numpy()
            _not_the_next(f"market feature {name!r}", column, str(other), following)


def _knows_nothing(what: str, feature: np.ndarray, following: np.ndarray) -> None:
    """AssertionError if a feature tells the next return."""
    both = np.isfinite(feature) & np.isfinite(following)
    known, moves = feature[both], following[both]
    if len(known) < 60 or np.ptp(known) == 0 or np.ptp(moves) == 0:
        return
    correlation = np.corrcoef(rankdata(known), rankdata(moves))[0, 1]
    if abs(correlation) > KNOWS:
        raise AssertionError(f"{what} has a rank correlation of {correlation:.2f} with the next "
                             "return")  # fmt: skip


def _not_the_next(what: str, feature: np.ndarray, other: str, values: np.ndarray) -> None:
    """AssertionError if a feature is what another will be on the next date."""
    now, later = feature[:-1], values[1:]
    changes = np.isfinite(now) & np.isfinite(later) & (values[:-1] != later)
    if changes.sum() >= 60 and (now == later)[changes].mean() > 0.9:
        raise AssertionError(f"{what} is {other!r} of the next date")
