"""How much of a result could be luck.

``sharpe_tests`` (intervals and tests of Sharpe ratios) by ``bootstrap``, ``variance_tests`` (the
same for variances), ``pooled_tests`` (of one difference over several markets), ``selection`` (what
having tried several strategies does to the best of them), ``trials`` (the ledger of what was
tried).
"""
