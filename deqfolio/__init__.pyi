# ruff: noqa: F403, I001
# Of two things with one name the first is meant: RiskParity is the strategy, not the loss.
from data_loaders import *
from strategies import *
from engine import *  # type: ignore[assignment]
from reports import *
from deqfolio.command_line import app as app
from deqfolio.command_line import main as main
