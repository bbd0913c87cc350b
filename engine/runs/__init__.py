"""Runs: results, run directories, experiments, and the ledger of all trials."""
