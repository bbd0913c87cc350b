"""How much of a result could be luck.

``difference_tests`` (intervals and tests of Sharpe ratios and variances, by bootstrap),
``pooled_tests`` (of one difference over several markets), ``selection`` (what having tried several
strategies does to the best of them; the ledger of what was tried).
"""
