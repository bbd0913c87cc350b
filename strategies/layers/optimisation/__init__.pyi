from strategies.layers.optimisation.cross_check import cross_check as cross_check
from strategies.layers.optimisation.mean_variance import ActiveSet as ActiveSet
from strategies.layers.optimisation.mean_variance import FactorRisk as FactorRisk
from strategies.layers.optimisation.mean_variance import InfeasibleError as InfeasibleError
from strategies.layers.optimisation.mean_variance import MeanVarianceLayer as MeanVarianceLayer
from strategies.layers.optimisation.mean_variance import Qpth as Qpth
from strategies.layers.optimisation.mean_variance import SolveError as SolveError
from strategies.layers.optimisation.soft_limit_layers import CVaRLayer as CVaRLayer
from strategies.layers.optimisation.soft_limit_layers import (
    MeanAbsoluteDeviationLayer as MeanAbsoluteDeviationLayer,
)
from strategies.layers.optimisation.soft_limit_layers import MultiPeriodLayer as MultiPeriodLayer
from strategies.layers.optimisation.soft_limit_layers import SoftLimitLayer as SoftLimitLayer
