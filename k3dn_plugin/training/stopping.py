"""What stops training: losses and weights that are not finite, no memory, a full disk, lost workers, signals."""
import contextlib
import errno
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from k3dn_plugin.data.loader import worker_error
from k3dn_plugin.errors import K3DNError, TrainingError
from k3dn_plugin.files import storage_error
from k3dn_plugin.inference.memory import is_out_of_memory
from k3dn_plugin.options import Options


def check_finite(losses: Mapping[str, float], names: Sequence[str], trainer: Any) -> None:
    """Raise `TrainingError` if a loss (floats by name) is NaN or infinite.

    `names` are the samples of this process's batch.
    """
    bad = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if not bad:
        return
    shown = ", ".join(f"{name} = {value}" for name, value in bad.items())
    samples = f" on the samples {', '.join(map(str, names[:8]))}" if names else ""
    raise TrainingError(f"the loss is not finite at iteration {trainer.iteration + 1:,}: {shown}{samples}. "
                        + _advice(trainer))


def check_weights(trainer: Any) -> None:
    """Raise `TrainingError` if a weight is NaN or infinite: such a state must not replace a good one."""
    name = trainer.components.not_finite()
    if name is not None:
        raise TrainingError(f"after iteration {trainer.iteration:,} the weight {name} is not finite (its "
                            f"gradient was not), so no state is saved. {_advice(trainer)}")


def _advice(trainer: Any) -> str:
    amp = trainer.options.train.amp
    tries = ["lower train.optim_g.lr or raise train.warmup_iter", "set train.grad_clip (1.0, say)"]
    if amp:
        tries.append(f"set train.amp to null{' or bfloat16' if amp == 'float16' else ''}")
    tries.append("look at the samples for damaged frames")
    kept = (f"The last good state is kept: {trainer.safe_state}" if trainer.safe_state
            else "No state had been saved before")
    return f"{kept}. What usually helps: {'; '.join(tries)}"


@contextlib.contextmanager
def explained(options: Options, folder: Path) -> Iterator[None]:
    """Turn running out of memory or disk space, and losing a worker, into an error with advice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        lost = worker_error(error)
        if lost is not None:
            # torch reports a worker's death wherever the main thread happens to be.
            raise lost from error
        if not is_out_of_memory(error):
            raise
        train = options.datasets.train
        assert train is not None   # what is trained on has been checked
        crop = train.arguments().get("crop_size")
        raise TrainingError(
            f"memory ran out ({str(error).splitlines()[0] if str(error) else type(error).__name__}). With "
            f"batch_size_per_gpu {train.batch_size_per_gpu} and crop_size {crop}, try one of: a smaller "
            "datasets.train.batch_size_per_gpu together with a larger train.accumulate (the same "
            "gradient); a smaller datasets.train.crop_size; train.amp: bfloat16; a smaller network_g. "
            "The states saved so far are whole") from error
    except OSError as error:
        if isinstance(error, K3DNError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise storage_error(error.filename or folder, error) from error


# SIGHUP comes when a terminal or session closes, SIGUSR1 from SLURM (`--signal=USR1@120`) before time runs out.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


class StopRequest:
    """Context in which SIGINT, SIGTERM, SIGHUP and SIGUSR1 set `signal` (0: none) and do not stop the program.

    A SIGHUP that is ignored already (`nohup`) stays so. A second SIGINT stops at once, with `KeyboardInterrupt`.
    Outside the main thread, where Python allows no handlers, signals keep their meaning.

    Args:
        notify: called with a message for the user at the first signal.
        patient: ignore repeats, because torchrun passes a Ctrl-C on that its processes already had.
    """

    def __init__(self, notify: Callable[[str], None], *, patient: bool = False):
        self.signal = 0
        self._notify = notify
        self._patient = patient
        self._before = {}
        self._process = os.getpid()

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number not in SIGNALS[:2] and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker, which inherited the handler: the main process decides
        if self.signal and number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        if not self.signal:
            self._notify(f"{signal.Signals(number).name} received: finishing this iteration, then saving"
                         + ("" if self._patient else " (Ctrl-C again stops at once)"))
        self.signal = self.signal or number
