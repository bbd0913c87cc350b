"""Limits and tolerances of the active-set method, of its kernels and its batched form alike."""

ROUND_LIMIT = 60  # rounds of one attempt
PATIENCE = 3  # rounds without fewer violations before an attempt is given up
AT_ONCE = 8  # violated rows that a round activates together; of more, only the one missed most
REFINED = 1e-12  # relative residual of a solution beyond which it is solved for once more
EXACT = 1e-10  # relative residual of a solution
START = 0.5  # of P's diagonal in the first guess: the rest is common risk, the budget takes it up
CLIMB_LIMIT = 1000  # rounds of the dual method, beside one for each weight and row
CHASED = 64  # rounds after which twice as much counts as rounding
REFINEMENTS = 4  # of a solution
START_HALVINGS = 16  # of the turnover and gross multipliers; more digits save no rounds

RETURN_TOLERANCE = 1e-12  # of a multiplier, relative to P_ii
ROUNDING = 1e-14  # of a weight beyond its segment; of a multiplier, relative to the gradient
ROW_ROUNDING = 1e-13  # of a row beyond its limit
WEAK = 1e-12  # of a multiplier, relative to the gradient or P_ii: below it counts as zero
FEASIBLE = 1e-12  # how far bounds and rows may miss each other; what an active row may lack
DEPENDENT_ROW = 1e-10  # part of a row that has to be new, or it is a combination of rows before it
DEPENDENT_EIGENVALUE = 1e-11  # of C K^-1 C', relative, below which rows depend on each other
