"""Compute: worker processes, clusters, threads, memory, progress. Knows no strategy."""
