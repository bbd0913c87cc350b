"""Limits and tolerances of the active-set method, of its kernels and its batched form alike."""

ROUND_LIMIT = 60  # rounds of one attempt
PATIENCE = 6  # rounds without fewer violations before an attempt is given up
AT_ONCE = 8  # violated rows that a round activates together; of more, only the one missed most
EXACT = 1e-10  # relative residual of a solution; beyond it the second line takes over
HOMOTOPY = (0.0, *(0.3 / 2**k for k in range(10)), 0.0)  # P + tau diag(P): plainly, then a path
START = -0.5  # tau of the first guess: half of a stock's variance is common, the budget takes it up
START_HALVINGS = 16  # of the turnover and gross multipliers; more digits save no rounds

RETURN_TOLERANCE = 1e-12  # of a multiplier, relative to P_ii
ROUNDING = 1e-14  # of a weight beyond its segment; of a multiplier, relative to the gradient
ROW_ROUNDING = 1e-13  # of a row beyond its limit
WEAK = 1e-12  # of a multiplier, relative to the gradient or P_ii: below it counts as zero
FEASIBLE = 1e-12  # how far bounds and rows may miss each other; what an active row may lack
DEPENDENT_ROW = 1e-10  # part of a row that has to be new, or it is a combination of rows before it
DEPENDENT_EIGENVALUE = 1e-11  # of C K^-1 C', relative, below which rows depend on each other
