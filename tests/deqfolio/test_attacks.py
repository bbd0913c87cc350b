"""A slice of ``make attack``: what is damaged is refused in a sentence, what is killed goes on."""

import sys

import attacks
import process_attacks
import pytest


@pytest.mark.parametrize(("attack", "count"), [(attacks.settings, 60), (attacks.yahoo, 30)])
def test_a_slice(attack, count):
    told = attack(count, seed=2026)
    assert sum(told.values()) == count
    assert not [what for what in told if what.startswith(attacks.BAD)], told
    assert len(told) > 1


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize(
    ("attack", "count"), [(process_attacks.kills, 4), (process_attacks.together, 2)]
)
def test_a_slice_of_kills(attack, count):
    told = attack(count, seed=2026, names=("refresh",))
    assert told["ended as without it"] == count
    assert not [what for what in told if what.startswith(attacks.BAD)], told
