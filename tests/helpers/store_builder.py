"""Builds a store in a process of its own, for tests that kill it: `python store_builder.py PATH [KILL]`.

KILL says where the process kills itself: `frames:3` (half through writing the 3rd scene), `commit:3` (when it
is written), `manifest` (half through writing the manifest), `before_rename`, `after_rename`. `limit:N`: no
file may grow beyond N bytes, as on a full disk.
"""
import os
import signal
import sys

import numpy as np

from k3dn_plugin.commands import run_tool
from k3dn_plugin.data import StoreWriter
from k3dn_plugin.data.store import writer as store_writer
from k3dn_plugin.data.store.manifest import MANIFEST_KEY

SCENES = 6


def frames(number):
    draw = np.random.default_rng(number)
    return {view: draw.integers(0, 65536, (40, 60, 3), np.uint16) for view in ("left", "right", "sharp")}


def build(path):
    with StoreWriter(path, dataset="killed", facts={"bit_depth": 16}) as writer:
        for number in range(SCENES):
            if f"scene_{number}" not in writer:
                writer.add(f"scene_{number}", frames(number), tags={"number": number})
        return writer.finish()


class _Deadly(dict):
    """A transaction's values, of which only the first can be written."""

    def items(self):
        yield next(iter(super().items()))
        os.kill(os.getpid(), signal.SIGKILL)


def arrange(kill):
    """Patch the writer so that the process ends at `kill`."""
    what, _, number = kill.partition(":")
    commit, rename = StoreWriter._commit, os.rename
    calls = []

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def deadly_commit(self, values):
        is_manifest = MANIFEST_KEY in values
        calls.extend([] if is_manifest else [None])
        here = what in ("frames", "commit") and not is_manifest and len(calls) == int(number)
        if what == "manifest" and is_manifest and len(calls):
            here = True
        commit(self, _Deadly(values) if here and what != "commit" else values)
        if here:
            die()

    def deadly_rename(*paths):
        if what == "before_rename":
            die()
        rename(*paths)
        if what == "after_rename":
            die()

    StoreWriter._commit = deadly_commit
    store_writer.os.rename = deadly_rename
    if what == "limit":
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.RLIM_INFINITY))


def main(argv=None):
    if len(sys.argv) > 2:
        arrange(sys.argv[2])
    build(sys.argv[1])


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
