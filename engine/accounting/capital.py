"""Money at the start of a portfolio, for what needs no torch to know it."""

CAPITAL = 1e6  # where costs name none
