"""The mean-variance layer: problem, exact solvers, robust layer, cross-checks."""
