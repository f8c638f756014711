"""Scores on held-out pairs, pictures, and the best weights."""
import logging
import math
import os
import shutil

from k3dn_plugin.evaluation.evaluate import evaluate
from k3dn_plugin.evaluation.results import EvaluationResult
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.training import randomness
from k3dn_plugin.training.hooks.base import Hook, due
from k3dn_plugin.training.provenance import save_published

logger = logging.getLogger("k3dn_plugin.training")


class ValidationHook(Hook):
    """Every `val.val_freq` iterations, and at the end of each stage, scores the validated weights.

    Processes share the images: each image is restored by one of them. models/best.safetensors keeps the
    weights that score best in the present stage (a new stage starts anew, with its own network), by the
    protocol's first metric: PSNR in all of ours. Pictures go to pictures/<image>_<iteration>.png.

    Args:
        dataset: the validation set.
        options: the block `val`.
        progress: show a bar over the images, on a terminal.
    """

    def __init__(self, dataset, options, *, progress=False):
        self._dataset, self._options, self._progress = dataset, options, progress
        self._protocol = PROTOCOLS.build({"type": options.protocol})

    def after_iteration(self, trainer):
        if not due(trainer, self._options.val_freq):
            return
        scores = trainer.validation = self._evaluate(trainer).means()
        trainer.row().update({f"val/{name}": value for name, value in scores.items()})
        better = trainer.best is None or self._rank(scores) > self._rank(trainer.best["scores"])
        if better:
            trainer.best = {"iteration": trainer.iteration, "scores": scores}
            if trainer.world.is_main:
                save_published(trainer.experiment.best_weights, trainer)
        logger.info("validation at iteration %s (%s, %d images): %s%s", f"{trainer.iteration:,}",
                    self._options.protocol, len(self._dataset), show_scores(scores),
                    ", the best so far" if better else "")

    def _evaluate(self, trainer):
        """The whole `EvaluationResult`, on every process."""
        parts, world, options = trainer.assembly, trainer.world, self._options
        world.share_buffers(parts.validated)
        working = trainer.experiment.working if options.save_img else None
        with randomness.preserved(world.device):
            mine = evaluate(parts.validated, self._dataset, self._protocol, device=world.device,
                            tile=options.tile, max_memory_gb=options.max_memory_gb,
                            save_pictures=options.save_img, out_dir=working, rank=world.rank,
                            world_size=world.size, progress=self._progress)
        parts.graph.train()  # frozen batch norms know themselves; `evaluate` does not
        result = EvaluationResult.merged(world.gather(mine))
        if working is not None and world.is_main:
            for picture in result.pictures:
                os.replace(picture, trainer.experiment.pictures
                           / f"{picture.stem}_{trainer.iteration:08d}{picture.suffix}")
            shutil.rmtree(working, ignore_errors=True)
        return result

    def _rank(self, scores):
        value = scores[self._protocol.ranking]
        if math.isnan(value):
            return -math.inf
        return value if self._protocol.higher_is_better(self._protocol.ranking) else -value


def show_scores(scores):
    """`psnr 27.1234 (input 25.1000), ...`."""
    return ", ".join(f"{name} {value:.4f}" + (f" (input {scores['input_' + name]:.4f})"
                                              if "input_" + name in scores else "")
                     for name, value in scores.items() if not name.startswith("input_"))
