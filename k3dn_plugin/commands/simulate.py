"""Make dual-pixel pairs, from photographs with made-up depth or from pictures with depth of their own.

k3dn simulate --photos DIR --out datasets/mine/train.lmdb --count 500
k3dn simulate --rgbd DIR --out datasets/nyu/train.lmdb            # DIR/rgb and DIR/depth
k3dn simulate --rgbd DIR --out datasets/sf.lmdb --mode rdpd       # as RDPD's generator does
k3dn simulate --photos DIR --out datasets/large.lmdb --count 100000 --cluster auto
"""
import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from k3dn_plugin.commands._cluster import add_cluster_argument, cluster_backend
from k3dn_plugin.commands._numbers import number, whole
from k3dn_plugin.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k3dn_plugin.data.store.reader import LmdbStore

GROUP = "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--photos", help="folder of sharp photographs, or a store whose sharp frames are taken")
    source.add_argument("--rgbd", help="folder with rgb and depth; or the folder of pictures, with --depth")
    source.add_argument("--demo", action="store_true",
                        help="make the demo's train.lmdb and val.lmdb below --out instead")
    source.add_argument("--figure", metavar="FILE",
                        help="draw kernels of every family and example pairs instead")
    parser.add_argument("--out", help="the store to make, e.g. datasets/mine/train.lmdb")
    parser.add_argument("--count", type=whole(1), help="scenes to make (default 100; with --rgbd one a picture)")
    parser.add_argument("--size", type=whole(1), nargs=2, metavar=("H", "W"),
                        help="of the frames (default 512 512; with --rgbd whole pictures)")
    parser.add_argument("--seed", type=whole(), default=0)
    parser.add_argument("--device", default="cpu", help="where scenes are rendered, e.g. cuda")
    add_cluster_argument(parser)
    lens = parser.add_argument_group("lens")
    lens.add_argument("--max-radius", type=number(above=True), help="largest blur radius in pixels")
    lens.add_argument("--psf", nargs="+", metavar="FAMILY", help="PSF families to draw from (default: all)")
    lens.add_argument("--bank", help="folder of measured kernels, for the family 'measured'")
    lens.add_argument("--separation", "--split", type=number(0, 1), nargs=2, metavar=("FROM", "TO"),
                      help="share of the ideal separation between the views")
    lens.add_argument("--frame", type=whole(1), nargs=2, metavar=("H", "W"),
                      help="frame that scenes from photographs lie in, also off its axis; 0 0: on the axis")
    lens.add_argument("--distortion", type=number(0, 1), metavar="SHARE", help="share of scenes with radial distortion")
    sensor = parser.add_argument_group("sensor")
    sensor.add_argument("--shot", type=number(), help="photon noise at full scale, of full scale")
    sensor.add_argument("--read", type=number(), help="read noise, of full scale")
    sensor.add_argument("--bits", type=int, choices=(8, 16), help="of the frames")
    sensor.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="any other setting of "
                        "SimulationSettings, e.g. one_channel_share=0.2 exposure=[0.1,1] (docs/simulation.md)")
    depth = parser.add_argument_group("pictures with depth")
    depth.add_argument("--mode", choices=("layered", "rdpd", "dddnet"),
                       help="our renderer, or a published simulator")
    depth.add_argument("--depth", help="folder of depth files (16-bit PNG or TIFF, PFM, .npy)")
    depth.add_argument("--depth-kind", choices=("depth", "disparity"), default="depth")
    depth.add_argument("--depth-scale", type=number(above=True),
                       help="what the files' numbers are divided by to give metres (default 1000 for PNG and TIFF, "
                            "else 1)")
    depth.add_argument("--encoding", choices=("plain", "synthia"), default="plain")
    depth.add_argument("--lens", type=number(above=True), nargs=3, metavar=("MM", "F_NUMBER", "PITCH_MM"),
                       help="a real lens instead of radii up to --max-radius")
    depth.add_argument("--focus", type=number(above=True), metavar="METRES", help="distance in focus (default: drawn)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    if arguments.figure:
        from k3dn_plugin.simulation.overview import write_overview  # heavy: not before the command runs
        print(f"written to {write_overview(arguments.figure, bank=arguments.bank)}")
        return 0
    if arguments.out is None:
        raise OptionError("give --out, the store to make")
    for store in make(arguments):
        print(f"{store.path}: {len(store.names)} scenes; picture: {store.path.with_suffix('.png')}")
    return 0


def make(arguments: argparse.Namespace) -> "tuple[LmdbStore, ...]":
    """Make the stores that are asked for."""
    from k3dn_plugin.simulation.demo import build_demo  # heavy: not before the command runs
    if arguments.demo:
        return build_demo(arguments.out, seed=arguments.seed)
    if arguments.cluster is None:
        return (build(arguments, arguments.out),)
    from k3dn_plugin.commands._shards import Shards, remove_shards  # heavy: not before the command runs
    from k3dn_plugin.files import user_path  # as above
    sources = [path for path in (arguments.photos, arguments.rgbd, arguments.depth, arguments.bank) if path]
    with cluster_backend(arguments.cluster) as backend:
        assert backend is not None  # there is an address
        shards = Shards("simulate", arguments, user_path(arguments.out), backend, sources=sources)
        store = build(arguments, arguments.out, made=lambda left, names: (
            (name, scene.frames()) for name, scene in shards.made(left, names)))
        remove_shards(user_path(arguments.out))
    return (store,)


def build(arguments: argparse.Namespace, out: str | Path, **part: Any) -> "LmdbStore":
    """Build the store that the arguments describe; `part` is `only` or `made` of `build_simulated`."""
    from k3dn_plugin.inference.device import choose_device  # heavy: not before the command runs
    from k3dn_plugin.simulation.build import build_from_depth, build_simulated  # heavy: not before the command runs
    from k3dn_plugin.simulation.rgbd import RgbdSettings  # heavy: not before the command runs
    from k3dn_plugin.simulation.sources import RgbdFolder  # heavy: not before the command runs
    # With `made`, scenes are rendered on other machines.
    device = "cpu" if part.get("made") else str(choose_device(arguments.device))
    settings = settings_of(arguments)
    if arguments.rgbd is None:
        count = 100 if arguments.count is None else arguments.count
        return build_simulated(out, arguments.photos, count=count, settings=settings, seed=arguments.seed,
                               device=device, **part)
    pictures = RgbdFolder(arguments.rgbd, arguments.depth, scale=arguments.depth_scale,
                          encoding=arguments.encoding)
    rgbd = RgbdSettings(kind=arguments.depth_kind, lens=arguments.lens and tuple(arguments.lens),
                        focus=arguments.focus)
    return build_from_depth(out, pictures, settings=settings, rgbd=rgbd, count=arguments.count,
                            whole=arguments.size is None, seed=arguments.seed, device=device, **part)


def make_shard(arguments: argparse.Namespace, path: Path, numbers: "Sequence[int]", split: str) -> dict[str, str]:
    """Make the scenes of these numbers as a store of their own; raises as `build_simulated`."""
    build(arguments, path, only=numbers)
    return {}


def settings_of(arguments: argparse.Namespace) -> Any:
    """Return the `SimulationSettings` of the arguments; what is not given keeps its default.

    Raises:
        OptionError: `--set` names no setting, is not NAME=VALUE, or a value is of another type.
    """
    from pydantic import TypeAdapter, ValidationError  # slow to import

    from k3dn_plugin.registry import PSF_FAMILIES  # heavy: not before the command runs
    from k3dn_plugin.simulation.psf import MEASURED  # heavy: not before the command runs
    from k3dn_plugin.simulation.settings import FORMER_NAMES, SimulationSettings  # heavy, as above
    given: dict[str, Any] = {
        "size": arguments.size or (512, 512), "max_radius": arguments.max_radius, "shot": arguments.shot,
        "read": arguments.read, "bit_depth": arguments.bits, "mode": arguments.mode, "bank": arguments.bank,
        "families": arguments.psf or PSF_FAMILIES.names() + [MEASURED] * (arguments.bank is not None),
        "separation": arguments.separation, "frame": arguments.frame,
        "distortion_share": arguments.distortion}
    given = {name: value for name, value in given.items() if value is not None}
    known = [field.name for field in fields(SimulationSettings)]
    for assignment in arguments.set:
        name, equals, value = assignment.partition("=")
        name = FORMER_NAMES.get(name, name)
        if not equals or name not in known:
            raise OptionError(f"--set {assignment}: expected NAME=VALUE with a name of {', '.join(known)}")
        try:
            given[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise OptionError(f"--set {assignment}: expected a value as YAML writes it, such as 0.5 or "
                              "[0.2,1.0]") from None
    if list(given.get("frame") or ()) == [0, 0]:
        given["frame"] = None
    try:
        return TypeAdapter(SimulationSettings).validate_python(given)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"]))
        raise OptionError(f"{where}: {found['msg'].lower()}, found {found['input']!r}") from None
