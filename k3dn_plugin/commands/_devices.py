"""A command on several devices of this machine: one process each, as torchrun would start them."""
import argparse
import multiprocessing
import os
import socket
import time
from collections.abc import Callable

from k3dn_plugin.console import end_process, environment_variable, stop_with
from k3dn_plugin.errors import OptionError, run_tool

POLL_SECONDS = 0.1
STOP_SECONDS = 10


def run_on_devices(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command in one process for each of `arguments.devices`; the exit status is the first that is not 0.

    When one process fails, the others are stopped. The status of a process that a signal ended is 128 and the signal's
    number, as in a shell.

    Args:
        command: called in each process with the same arguments, `device` and `launcher` excepted.

    Raises:
        OptionError: `--launcher` is given too, which starts processes itself.
    """
    if arguments.launcher != "none":
        raise OptionError(f"--devices starts the processes that --launcher {arguments.launcher} says are started "
                          "already: give one of the two")
    size = len(arguments.devices)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // size, 1))
    context = multiprocessing.get_context("spawn")  # torch's threads and CUDA do not survive a fork
    processes = []
    for rank, device in enumerate(arguments.devices):
        own = {**vars(arguments), "devices": None, "device": device, "launcher": "pytorch"}
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
                     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": threads}
        processes.append(context.Process(target=_one, args=(command, own, variables), daemon=True))
    with environment_variable("OMP_NUM_THREADS", threads):  # read when torch is imported, before `_one` runs
        for process in processes:
            process.start()
    try:
        while any(process.is_alive() for process in processes):
            if any(process.exitcode for process in processes):
                break
            time.sleep(POLL_SECONDS)
        status = next((process.exitcode for process in processes if process.exitcode), 0)
        return status if status >= 0 else 128 - status
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(STOP_SECONDS)
            if process.is_alive():
                process.kill()


def _one(command: Callable[[argparse.Namespace], int], arguments: dict, variables: dict[str, str]) -> None:
    os.environ.update(variables)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        stop_with(parent.pid)
    end_process(run_tool(lambda _: command(argparse.Namespace(**arguments))))
