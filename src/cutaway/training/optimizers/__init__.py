"""Optimizers: which of the weights decay, which are turned by Muon, and their state by name."""

from cutaway.training.optimizers.build import build
from cutaway.training.optimizers.muon import Muon
from cutaway.training.optimizers.state import load_state, state

__all__ = ["Muon", "build", "load_state", "state"]
