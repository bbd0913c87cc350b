"""Wrappers: strategies around a strategy, each of which changes one thing about its answers."""
