"""Ctrl-C and SIGTERM: finish the iteration, save, then stop."""
import os
import signal
import threading


class StopRequest:
    """Context in which SIGINT and SIGTERM set `signal` (0: none) and do not stop the program.

    A second SIGINT stops at once, with `KeyboardInterrupt`. Outside the main thread, where Python allows
    no handlers, signals keep their meaning.

    Args:
        notify: called with a message for the user at the first signal.
        patient: ignore repeats, because torchrun passes a Ctrl-C on that its processes already had.
    """

    def __init__(self, notify, *, patient=False):
        self.signal = 0
        self._notify = notify
        self._patient = patient
        self._before = {}
        self._process = os.getpid()

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        if os.getpid() != self._process:
            return  # a loader's worker, which inherited the handler: the main process decides
        if self.signal and number == signal.SIGINT and not self._patient:
            raise KeyboardInterrupt
        if not self.signal:
            self._notify(f"{signal.Signals(number).name} received: finishing this iteration, then saving"
                         + ("" if self._patient else " (Ctrl-C again stops at once)"))
        self.signal = self.signal or number
