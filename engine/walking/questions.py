"""Networks that are asked date by date: one run, or several in step, each network of one batch.

What decides is a generator: it yields a ``Question`` where it needs to know what networks want,
and is sent the answers. So the dates of several seeds, each with holdings of its own, are answered
together, as their training is computed together, and each to the bits that it has alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextvars import copy_context
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch

from engine.training.rollout import joint
from strategies.base import Inputs, LearnedStrategy, SharedRecord, SolveRecord, record_solves

T = TypeVar("T")
Answer: TypeAlias = np.ndarray | Exception  # weights (N,), or why there are none


class Question(NamedTuple):
    """What networks want to hold.

    Attributes:
        strategies: S of them.
        inputs: one sample for each, (S, ...).
        record: where their solves are counted, if anywhere.
    """

    strategies: Sequence[LearnedStrategy]
    inputs: Inputs
    record: SolveRecord | None


Deciding: TypeAlias = Generator[Question, list[Answer], T]


def one_by_one(deciding: Deciding[T]) -> T:
    """What comes of it, each of its questions answered."""
    return in_step([deciding])[0]


def in_step(decidings: Sequence[Deciding[T]]) -> list[T]:
    """What comes of each; their questions, the k-th of all of them, are answered together."""
    contexts = [copy_context() for _ in decidings]  # each has its own open record
    results: dict[int, T] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(decidings)))
    try:
        while answers:
            questions: dict[int, Question] = {}
            for number, answer in answers.items():
                try:
                    questions[number] = contexts[number].run(decidings[number].send, answer)
                except StopIteration as done:
                    results[number] = done.value
            answers = dict(zip(questions, _answered(list(questions.values())), strict=True))
    finally:
        for context, deciding in zip(contexts, decidings, strict=True):
            context.run(deciding.close)  # after an error: the others end where they are
    return [results[number] for number in range(len(decidings))]


def _answered(questions: Sequence[Question]) -> list[list[Answer]]:
    """The answers to each question."""
    asked = [(s, question.record) for question in questions for s in question.strategies]
    if not asked:
        return []
    names = questions[0].inputs
    inputs = {name: torch.cat([question.inputs[name] for question in questions]) for name in names}
    found: Sequence[Answer] | None = _together(asked, inputs)
    if found is None:  # one failed, perhaps: whose it is shows when each is alone
        found = [
            _alone(strategy, record, {name: values[k : k + 1] for name, values in inputs.items()})
            for k, (strategy, record) in enumerate(asked)
        ]
    ends = np.cumsum([len(question.strategies) for question in questions])
    return [
        list(found[end - len(question.strategies) : end])
        for question, end in zip(questions, ends.tolist(), strict=True)
    ]


def _alone(strategy: LearnedStrategy, record: SolveRecord | None, inputs: Inputs) -> Answer:
    try:
        with record_solves(into=SolveRecord() if record is None else record):
            return strategy.weights(inputs)[0].numpy()
    except MemoryError:
        raise
    except Exception as error:
        return error


def _together(
    asked: Sequence[tuple[LearnedStrategy, SolveRecord | None]], inputs: Inputs
) -> list[Answer] | None:
    """All at once, or None where that cannot be, or fails."""
    strategies = [strategy for strategy, _ in asked]
    modules: list[Any] = [getattr(strategy, "module_", None) for strategy in strategies]
    plain = all(type(s).weights is LearnedStrategy.weights for s in strategies)
    if len(asked) < 2 or None in modules or not plain or not joint(modules):
        return None
    own = [SolveRecord() for _ in asked]
    shared = SharedRecord(limits=[], shares=[(record, 1) for record in own])
    place = next(modules[0].parameters(), torch.empty(0)).device
    try:
        for module in modules:
            module.eval()
        there = {name: values.to(place) for name, values in inputs.items()}
        with record_solves(into=shared), torch.no_grad():
            weights, _ = type(modules[0]).together(modules, there, [1] * len(modules))
    except (KeyError, ValueError, RuntimeError):
        return None
    for (_, record), mine in zip(asked, own, strict=True):
        if record is not None:
            record.take(mine)
    for number, sample in enumerate(shared.limits or []):
        record = asked[number % len(asked)][1]
        if record is not None and record.limits is not None:
            record.limits.append(sample)
    return list(weights.cpu().numpy())
