"""Deep equilibria: fixed points, solvers, adjoints, cells, the encoder."""
