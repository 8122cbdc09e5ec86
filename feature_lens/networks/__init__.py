"""Trained networks as frozen pure functions, their checkpoints, and the networks that come with the project."""

from feature_lens.networks.checkpoints import load_checkpoint
from feature_lens.networks.network import Network

__all__ = ["Network", "load_checkpoint"]
