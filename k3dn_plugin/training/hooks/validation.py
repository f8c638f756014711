"""Scores on held-out pairs, pictures, and the best weights."""
import logging

from k3dn_plugin.evaluation.evaluate import evaluate
from k3dn_plugin.training import randomness
from k3dn_plugin.training.hooks.base import Hook, due
from k3dn_plugin.training.provenance import save_published

logger = logging.getLogger("k3dn_plugin.training")

BEST_BY = "psnr"


class ValidationHook(Hook):
    """Every `val.val_freq` iterations, and at the end of each stage, scores the validated weights.

    Processes share the images: each image is restored by one of them. models/best.safetensors keeps the
    weights with the highest PSNR of the present stage (a new stage starts anew, with its own network).

    Args:
        dataset: the validation set.
    """

    def __init__(self, dataset):
        self._dataset = dataset

    def after_iteration(self, trainer):
        if not due(trainer, trainer.options.val.val_freq):
            return
        scores = self._scores(trainer)
        trainer.validation = scores
        trainer.row().update({f"val/{name}": value for name, value in scores.items()})
        better = trainer.best is None or scores[BEST_BY] > trainer.best["scores"][BEST_BY]
        if better:
            trainer.best = {"iteration": trainer.iteration, "scores": scores}
            if trainer.world.is_main:
                save_published(trainer.experiment.best_weights, trainer)
        logger.info("validation at iteration %s (%s, %d images): %s%s", f"{trainer.iteration:,}",
                    trainer.options.val.protocol, len(self._dataset),
                    ", ".join(f"{name} {value:.4f}" for name, value in scores.items()),
                    ", the best so far" if better else "")

    def _scores(self, trainer):
        """Mean scores over all images."""
        parts, world, options = trainer.assembly, trainer.world, trainer.options.val
        world.share_buffers(parts.validated)
        parts.validated.eval()
        mine = range(world.rank, len(self._dataset), world.size)
        with randomness.preserved(world.device):
            rows = evaluate(parts.validated, self._dataset, options.protocol, indices=mine,
                            device=world.device)
        parts.graph.train()
        rows = [row for part in world.gather(rows) for row in part]
        names = [name for name in rows[0] if name != "name"]
        return {name: sum(row[name] for row in rows) / len(rows) for name in names}
