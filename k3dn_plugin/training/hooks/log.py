"""The training log that everybody knows from BasicSR, and a progress bar where someone is watching."""
import datetime
import logging
import sys
import time

from tqdm import tqdm

from k3dn_plugin.training.hooks.base import Hook, due

logger = logging.getLogger("k3dn_plugin.training")


class LogHook(Hook):
    """A block `[name][epoch, iter, lr] [eta, time (data)] losses` every `logger.print_freq` iterations."""

    def before_run(self, trainer):
        self._began = time.perf_counter()

    def before_stage(self, trainer):
        stage, parts = trainer.stage, trainer.assembly
        count = sum(p.numel() for p in parts.restorer.parameters())
        trained = sum(p.numel() for p in parts.parameters)
        logger.info("stage %r (%d of %d): iterations %s to %s, %s with %s parameters, %s trained, "
                    "%d samples an iteration", stage.name, stage.index + 1, len(trainer.plan),
                    f"{trainer.iteration + 1:,}", f"{stage.end:,}", stage.network_g["type"], f"{count:,}",
                    f"{trained:,}", trainer.batch)

    def after_iteration(self, trainer):
        if due(trainer, trainer.options.logger.print_freq):
            logger.info(self._block(trainer))

    def _block(self, trainer):
        stage = trainer.stage
        epoch = (trainer.iteration - stage.start) * trainer.batch // len(trainer.feed.training(stage))
        losses = " ".join(f"{name}: {value:.4e}" for name, value in trainer.losses.items())
        return (f"[{trainer.options.name[:12]}..][{stage.name}, epoch:{epoch:3d}, "
                f"iter:{trainer.iteration:8,d}, lr:({trainer.lr:.3e},)] [eta: {self._eta(trainer)}, "
                f"time (data): {trainer.step_seconds:.3f} ({trainer.data_seconds:.3f})] {losses}")

    def _eta(self, trainer):
        done = trainer.iteration - trainer.first_iteration
        left = trainer.total_iter - trainer.iteration
        seconds = (time.perf_counter() - self._began) / max(done, 1) * left
        return datetime.timedelta(seconds=int(seconds))


class ProgressHook(Hook):
    """A tqdm bar over all iterations of the run, on a terminal."""

    _bar = None

    def before_run(self, trainer):
        self._bar = tqdm(total=trainer.total_iter, initial=trainer.iteration, unit="it", dynamic_ncols=True,
                         desc=trainer.options.name, leave=False)

    def after_iteration(self, trainer):
        self._bar.update()
        if trainer.iteration % 10 == 0:
            self._bar.set_postfix(trainer.losses, refresh=False)

    def close(self, trainer):
        if self._bar is not None:
            self._bar.close()


class ConsoleHandler(logging.Handler):
    """Log lines above the progress bar, without tearing it."""

    def emit(self, record):
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()
