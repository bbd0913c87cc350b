"""Research: searches, seeds, cross-validation, audits, cost sweeps, orders of the day."""
