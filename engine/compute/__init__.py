"""Compute: worker processes, clusters, threads. Names nothing of a backtest."""
