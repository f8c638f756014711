"""The argument `--cluster` of commands whose jobs run on a Ray cluster."""
import argparse
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from k3dn_plugin.comparison.jobs import Backend


def add_cluster_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--cluster`."""
    parser.add_argument("--cluster", metavar="auto|ADDRESS", help="run the jobs on a Ray cluster: `auto` for the one "
                        "that this machine is a node of, or HOST:PORT (extra [cluster]; docs/guides/cluster.md)")


def cluster_backend(address: str | None) -> "contextlib.AbstractContextManager[Backend | None]":
    """Return a context with the back end of a cluster, or with None without an address.

    Raises:
        DependencyError: ray is not installed.
        OptionError: there is no cluster at the address.
    """
    if address is None:
        return contextlib.nullcontext()
    from k3dn_plugin.bridges.ray import RayBackend  # heavy: not before a cluster is asked for
    return RayBackend(address)
