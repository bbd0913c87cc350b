"""Research: searches, seeds, cross-validation, audits, cost sweeps."""
