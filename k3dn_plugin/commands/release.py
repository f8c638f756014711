r"""Put trained weights into the package, rounded to 16 bits, with a card of where they come from and how they score.

    k3dn release experiments/k3dn_s_real/models/last.safetensors --name k3dn_s_real \
        --scores results/k3dn_s_real/*/summary.json --limits limits.md

limits.md is a text that you write: where the weights fail, as you have seen it. Without scores and limits a card is not
whole; it is written all the same, and a note says what it lacks. Releasing again writes a new card.
Afterwards `k3dn restore --weights k3dn_s_real` and `load_restorer("k3dn_s_real")` find them. Rounding is checked: the
outputs must agree with those in float32 to 50 dB. A file may have 8 MB.
"""
import argparse
import sys
from pathlib import Path

GROUP = "weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("weights", help="of a training run; or released ones, for a new card")
    parser.add_argument("--name", required=True, help="by which they will be loaded, such as k3dn_s_real")
    parser.add_argument("--scores", nargs="+", default=[], metavar="FILE",
                        help="summary.json files of `k3dn test` with these weights, before or after rounding")
    parser.add_argument("--limits", metavar="TEXT", default="",
                        help="where the weights fail, in words, or a file with them")
    parser.add_argument("--seeds", metavar="TEXT", default="", help="of the training, where the weights do not say")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16", help="default: float16")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="default: the package's own folder")


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.console import command_line
    from k3dn_plugin.files import read_file
    from k3dn_plugin.zoo.release import earlier_stage, missing_in, release
    from k3dn_plugin.zoo.sources import is_released
    limits = arguments.limits
    if limits and "\n" not in limits and len(limits) < 250 and Path(limits).is_file():
        limits = read_file(limits).decode("utf-8", "replace").strip()
    made = release(arguments.weights, arguments.name, scores=arguments.scores, limits=limits, seeds=arguments.seeds,
                   dtype=arguments.dtype, folder=arguments.out)
    rounding = made.card["provenance"]["rounding"]
    print(f"{made.path}: {made.path.stat().st_size / 1e6:.1f} MB, {rounding['dtype']}; outputs agree with float32 "
          f"to {rounding['least_db']:g} dB on {rounding['pairs']} simulated pairs\n"
          f"card: {made.path.with_suffix('.md')}")
    stages, lacking = earlier_stage(made.card), missing_in(made.card) if is_released(made.path) else []
    if stages:
        print(f"note: these weights are from stage {stages[0]!r}; the last stage of their recipe is {stages[1]!r}, "
              "whose weights are models/last.safetensors of the finished run", file=sys.stderr)
    if lacking:
        dtype = "" if rounding["dtype"] == "float16" else f" --dtype {rounding['dtype']}"
        print(f"note: the card lacks {' and '.join(lacking)}; weights that come with the package must have both. Score "
              f"them ({command_line('test')} --weights {made.name} --data STORE), write in limits.md where they fail, "
              f"and release again, which writes the whole card anew: {command_line('release')} {made.name} --name "
              f"{made.name}{dtype} --scores results/{made.name}/*/summary.json --limits limits.md", file=sys.stderr)
    return 0
