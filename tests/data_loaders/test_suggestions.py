from data_loaders.suggestions import did_you_mean, known_names

NAMES = ["lookback", "Cap", "fallback"]


def test_the_nearest_name_is_suggested_as_it_is_written():
    assert did_you_mean("cpa", NAMES) == "; did you mean 'Cap'?"
    assert did_you_mean("LOOKBAK", NAMES) == "; did you mean 'lookback'?"
    assert did_you_mean(3, ["lookback"]) == did_you_mean("cap", []) == ""


def test_all_known_names_follow():
    known = "known are lookback, Cap, fallback"
    assert known_names("cpa", iter(NAMES)) == f"; did you mean 'Cap'? {known}"
    assert known_names("nothing like it", NAMES) == f"; {known}"
