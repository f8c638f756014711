"""metrics.csv: one row for every logged or validated iteration."""
import csv

from k3dn_plugin.atomic import atomic_write, storage_error
from k3dn_plugin.training.hooks.base import Hook, due


class RecordHook(Hook):
    """Adds rows to `trainer.history` and keeps metrics.csv equal to it.

    The rows are part of the training state, so that a resumed run's file has no row twice and none from
    iterations that are computed again.
    """

    def __init__(self):
        self._columns = []

    def before_run(self, trainer):
        self._rewrite(trainer)

    def after_iteration(self, trainer):
        if due(trainer, trainer.options.logger.print_freq):
            trainer.row().update(lr=trainer.lr, **{f"loss/{k}": v for k, v in trainer.losses.items()})
        if trainer.history and trainer.history[-1]["iteration"] == trainer.iteration:
            self._append(trainer)

    def _append(self, trainer):
        row = trainer.history[-1]
        if any(column not in self._columns for column in row):
            self._rewrite(trainer)
            return
        path = trainer.experiment.metrics
        try:
            with open(path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        except OSError as error:
            raise storage_error(path, error) from error

    def _rewrite(self, trainer):
        self._columns = list(dict.fromkeys(column for row in trainer.history for column in row))
        with atomic_write(trainer.experiment.metrics, "w", newline="", encoding="utf-8") as file:
            if self._columns:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(trainer.history)
