"""Losses, learning rate, scores and pictures for TensorBoard."""
from k3dn_plugin.errors import DependencyError
from k3dn_plugin.training.hooks.base import Hook, due


class TensorBoardHook(Hook):
    """Writes the rows of metrics.csv, and the validation pictures, to tb/.

    On resume, TensorBoard is told to drop what lies behind the resumed iteration.
    """

    _writer = None

    def before_run(self, trainer):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise DependencyError(f"logger.use_tb_logger needs tensorboard, which is not importable ({error})"
                                  ". Install it (pip install tensorboard), or set "
                                  "logger.use_tb_logger=false") from error
        self._writer = SummaryWriter(trainer.experiment.tensorboard, purge_step=trainer.iteration + 1)

    def after_iteration(self, trainer):
        if due(trainer, trainer.options.logger.print_freq):
            self._writer.add_scalar("lr", trainer.lr, trainer.iteration)
            for name, value in trainer.losses.items():
                self._writer.add_scalar(f"loss/{name}", value, trainer.iteration)
        for name, value in (trainer.validation or {}).items():
            self._writer.add_scalar(f"val/{name}", value, trainer.iteration)

    def close(self, trainer):
        if self._writer is not None:
            self._writer.close()
