"""States to resume from, and the latest weights."""
import logging

from k3dn_plugin.training.guard import check_weights
from k3dn_plugin.training.hooks.base import Hook, due
from k3dn_plugin.training.provenance import save_published
from k3dn_plugin.training.state import save_state

logger = logging.getLogger("k3dn_plugin.training")


class CheckpointHook(Hook):
    """Saves a state and models/last.safetensors every `logger.save_checkpoint_freq` iterations, at the end
    of each stage and before stopping. A stage that is not the last also leaves models/<its name>.safetensors.
    """

    def after_iteration(self, trainer):
        if not (due(trainer, trainer.options.logger.save_checkpoint_freq) or trainer.stopping):
            return
        check_weights(trainer)
        state = trainer.state()  # every process takes part
        if trainer.world.is_main:
            experiment, stage = trainer.experiment, trainer.stage
            save_published(experiment.last_weights, trainer)
            if trainer.iteration == stage.end and stage is not trainer.plan[-1]:
                save_published(experiment.models / f"{stage.name}.safetensors", trainer)
            # The state comes last: a run killed before it is written does all this again.
            trainer.safe_state = save_state(experiment.states, state,
                                            keep=trainer.options.logger.keep_checkpoints)
            logger.info("saved %s", trainer.safe_state)
