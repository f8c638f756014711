"""The named points of the loop."""


class Hook:
    """Something that happens beside training. Every method gets the `Trainer`; most hooks need one or two."""

    def before_run(self, trainer):
        """Once, after the training state, if any, has been read and before the first stage is built."""

    def before_stage(self, trainer):
        """The stage's network, optimiser and loader are ready."""

    def after_iteration(self, trainer):
        """`trainer.iteration` counts the iteration that has just ended."""

    def close(self, trainer):
        """Last, after an error too: let go of files."""


def due(trainer, frequency):
    """Whether something that happens every `frequency` iterations, and at a stage's end, happens now."""
    return trainer.iteration % frequency == 0 or trainer.iteration == trainer.stage.end
