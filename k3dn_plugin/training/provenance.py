"""Weights as they are published: the validated network, with a header that says how it came about."""
import platform

import torch

from k3dn_plugin import __version__
from k3dn_plugin.zoo.weights import save_weights


def save_published(path, trainer):
    """Write the validated weights of `trainer` (the moving average where there is one) to `path`."""
    save_weights(path, trainer.assembly.validated, network_g=trainer.stage.network_g,
                 provenance=provenance(trainer))


def provenance(trainer):
    """Where the present weights come from, as a JSON mapping."""
    options = trainer.options
    return {
        "origin": "trained here", "run": options.name, "recipe": str(options.source() or ""),
        "options_hash": options.hash(), "stage": trainer.stage.name, "iteration": trainer.iteration,
        "samples_seen": trainer.samples_seen, "moving_average": trainer.stage.ema_decay or None,
        "validation": trainer.latest_scores(),
        "protocol": options.val.protocol if options.datasets.val is not None else None,
        "device": trainer.world.device.type, "processes": trainer.world.size,
        "versions": {"k3dn_plugin": __version__, "torch": str(torch.__version__),
                     "python": platform.python_version()},
    }
