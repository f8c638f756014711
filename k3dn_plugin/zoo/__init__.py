"""Published checkpoints and ours: what they hold and how they become our restorers."""
from k3dn_plugin.zoo.load import LoadedRestorer, load_restorer
from k3dn_plugin.zoo.published import OfficialCheckpoint, load_official
from k3dn_plugin.zoo.weights import load_weights, read_weights, restorer_from_weights, save_weights

__all__ = ["LoadedRestorer", "OfficialCheckpoint", "load_official", "load_restorer", "load_weights", "read_weights",
           "restorer_from_weights", "save_weights"]
