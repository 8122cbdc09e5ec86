"""How features came about: what snapshots of a training say of the network's kernel, its features and its dual model.

snapshots     parameters by step, checked, from the initial to the trained ones
step_figures  the figures of one step
finals        which features of a run have a history
history       features of the trained network matched backwards through the steps
tables        all of it as tables that a run keeps
"""

from feature_lens.dynamics.finals import FinalFeatures
from feature_lens.dynamics.snapshots import parsed_snapshots, steps_of
from feature_lens.dynamics.tables import DynamicsSettings, dynamics_tables

__all__ = ["DynamicsSettings", "FinalFeatures", "dynamics_tables", "parsed_snapshots", "steps_of"]
