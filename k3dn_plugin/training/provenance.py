"""Weights as they are published: the validated network, with a header that says how it came about."""
from k3dn_plugin.evaluation.provenance import data_hash, describe_data, device_name, versions
from k3dn_plugin.zoo.weights import save_weights


def save_published(path, trainer):
    """Write the validated weights of `trainer` (the moving average where there is one) to `path`."""
    save_weights(path, trainer.assembly.validated, network_g=trainer.stage.network_g,
                 provenance=provenance(trainer))


def provenance(trainer):
    """Where the present weights come from, as a JSON mapping."""
    options, stage = trainer.options, trainer.stage
    dataset = trainer.feed.training(stage)
    return {
        "origin": "trained here", "run": options.name, "recipe": str(options.source() or ""),
        "options_hash": options.hash(), "stage": stage.name, "iteration": trainer.iteration,
        "samples_seen": trainer.samples_seen, "moving_average": stage.ema_decay or None,
        "data": describe_data(dataset), "data_hash": data_hash(dataset),
        "validation": trainer.latest_scores(),
        "protocol": options.val.protocol if options.datasets.val is not None else None,
        "device": device_name(trainer.world.device), "processes": trainer.world.size,
        "versions": versions(),
    }
