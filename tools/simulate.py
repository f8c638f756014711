"""Make dual-pixel pairs from photographs: python tools/simulate.py --photos DIR --out STORE --count N"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from k3dn_plugin.cli import run_tool  # noqa: E402


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true",
                        help="make the demo's train.lmdb and val.lmdb below --out instead")
    parser.add_argument("--photos", help="folder of sharp photographs")
    parser.add_argument("--out", required=True, help="the store to make, e.g. datasets/mine/train.lmdb")
    parser.add_argument("--count", type=int, default=100, help="scenes to make (default 100)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), default=(512, 512))
    parser.add_argument("--max-radius", type=float, default=12.0, help="largest blur radius in pixels")
    parser.add_argument("--psf", nargs="+", default=None, metavar="FAMILY", help="PSF families to draw from")
    parser.add_argument("--shot", type=float, default=0.004, help="photon noise at full scale, of full scale")
    parser.add_argument("--read", type=float, default=0.001, help="read noise, of full scale")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    if not arguments.demo and arguments.photos is None:
        parser.error("give --photos DIR (or --demo)")

    from k3dn_plugin.simulation.build import build_simulated
    from k3dn_plugin.simulation.demo import build_demo
    from k3dn_plugin.simulation.pairs import SimulationSettings
    if arguments.demo:
        stores = build_demo(arguments.out, seed=arguments.seed)
    else:
        families = {} if arguments.psf is None else {"families": tuple(arguments.psf)}
        settings = SimulationSettings(size=tuple(arguments.size), max_radius=arguments.max_radius,
                                      shot=arguments.shot, read=arguments.read, **families)
        stores = [build_simulated(arguments.out, arguments.photos, count=arguments.count, settings=settings,
                                  seed=arguments.seed)]
    for store in stores:
        print(f"{store.path}: {len(store.names)} scenes; picture: {store.path.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
