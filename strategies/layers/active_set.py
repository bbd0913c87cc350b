"""Interim: ActiveSet is solved by qpth until the kernels land."""

from strategies.layers.qpth_solver import Qpth


class ActiveSet(Qpth):
    pass
