"""Make stores of a published data set, or of one's own pairs: checked, resumable, nothing half-made left."""
import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k3dn_plugin.commands._cluster import add_cluster_argument, cluster_backend
from k3dn_plugin.commands._numbers import whole
from k3dn_plugin.registry import PREPARERS

if TYPE_CHECKING:
    from k3dn_plugin.comparison.jobs import Backend
    from k3dn_plugin.data.preparation.build import PreparedSplit

GROUP = "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; the layouts known to the registry are listed below them."""
    known = {name: PREPARERS.get(name) for name in PREPARERS.names()}
    parser.epilog = "Data sets and the layout of SOURCE:\n\n" + "\n\n".join(
        f"{name}: {cls.title}\n{cls.tree}" for name, cls in known.items())
    parser.add_argument("name", help=f"one of {', '.join(known)}")
    parser.add_argument("--source", required=True, metavar="DIR", help="the folder with the original files")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the stores go, e.g. datasets/dpdd")
    parser.add_argument("--bits", type=int, choices=(8, 16),
                        help="bit depth of the files, where it differs from the published one")
    parser.add_argument("--full-scale", type=whole(256, 65535), metavar="N",
                        help="the number that stands for white in 16-bit files of fewer bits: 1023, 4095 or 16383 "
                             "for 10, 12 or 14")
    parser.add_argument("--keep-portrait", action="store_true",
                        help="do not turn frames that are higher than wide (their views must be shifted "
                             "along the columns all the same)")
    add_cluster_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because OpenCV and lmdb take time and --help should not.
    from k3dn_plugin.data.preparation import get_preparer, prepare

    get_preparer(arguments.name)
    with cluster_backend(arguments.cluster) as backend:
        if backend is not None:
            prepared = prepare_by_jobs(arguments, backend)
        else:
            prepared = prepare(arguments.name, arguments.source, arguments.out, **reading(arguments),
                               progress=sys.stderr.isatty())
    for split in prepared:
        print(split.summary())
    return 0


def reading(arguments: argparse.Namespace) -> dict:
    """Return the arguments that say how files are read."""
    return {"bits": arguments.bits, "full_scale": arguments.full_scale, "keep_portrait": arguments.keep_portrait}


def prepare_by_jobs(arguments: argparse.Namespace, backend: "Backend") -> "list[PreparedSplit]":
    """Let jobs read, check and cut the scenes, and store them here; raises as `prepare`."""
    from k3dn_plugin.commands._shards import Shards, remove_shards  # heavy: not before the command runs
    from k3dn_plugin.data.preparation import prepare  # heavy, as above
    from k3dn_plugin.errors import DataError  # as above
    from k3dn_plugin.files import user_path  # as above
    def made(split: Any, left: Any, scenes: Any) -> Iterator[tuple[Any, Any]]:   # `Made` of the package says of what
        shards = Shards("prepare", arguments, user_path(arguments.out) / f"{split.name}.lmdb", backend,
                        sources=[arguments.source], split=split.name)
        by_name = {scene.name: scene for scene in left}
        for name, scene in shards.made(list(by_name), [scene.name for scene in scenes]):
            if scene.fault is not None:
                yield by_name[name], DataError(scene.fault)
                continue
            by_name[name].tags.update(scene.record.tags)  # with those that reading the files has added
            hashes = {view: frame.source_sha256 for view, frame in scene.record.views.items() if frame.source_sha256}
            yield by_name[name], (scene.frames(), scene.record.crops, hashes)

    prepared = prepare(arguments.name, arguments.source, arguments.out, **reading(arguments), made=made)
    for split in prepared:
        remove_shards(split.store.path)
    return prepared


def make_shard(arguments: argparse.Namespace, path: Path, numbers: Sequence[int], split: str) -> dict[str, str]:
    """Read the scenes of these numbers into a store of their own; return what is wrong with the others, by name."""
    from k3dn_plugin.data.preparation.build import prepare_part  # heavy: not before the command runs
    return prepare_part(arguments.name, arguments.source, path, split=split, only=numbers, **reading(arguments))
