from strategies.layers.equilibrium import *  # noqa: F403
from strategies.layers.optimisation import *  # noqa: F403
from strategies.layers.solve_record import record_solves as record_solves
