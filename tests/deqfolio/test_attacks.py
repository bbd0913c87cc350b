"""A slice of ``make attack``: damaged settings and answers of Yahoo are refused in a sentence."""

import attacks
import pytest


@pytest.mark.parametrize(("attack", "count"), [(attacks.settings, 60), (attacks.yahoo, 30)])
def test_a_slice(attack, count):
    told = attack(count, seed=2026)
    assert sum(told.values()) == count
    assert not [what for what in told if what.startswith(attacks.BAD)], told
    assert len(told) > 1
