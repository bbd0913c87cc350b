"""Compute: worker processes, clusters, threads, memory, progress. Names nothing of a backtest."""
