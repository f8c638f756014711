"""What one comparison of all restorers on DPDD costs: work and GPU hours of each recipe, and what it reads.

The work is counted, not guessed: multiply-accumulates of a forward pass at each phase's crop, times the samples of the
phase, times three for forward and backward; and those of the test set's full frames. Hours follow from a GPU's
sustained rate (`--tflops`, an assumption), or, where there is a GPU, from steps measured on it (`--device cuda`).

    python benchmarks/comparison_cost.py --tflops 20
    python benchmarks/comparison_cost.py --device cuda --csv mine.csv
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.table import RESULTS, save, show
from k3dn_plugin.commands import run_tool

FRAME, TRAIN_FRAMES, TEST_FRAMES = (1120, 1680), 350, 76   # DPDD (docs/networks/dpdd_dataset.md)
VIEWS, BYTES = 4, 3 * 2                                     # left, right, center, sharp; RGB of 16 bits
BACKWARD = 3          # forward and backward pass, in forward passes
PAGE = 4096           # bytes that the system reads at least


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help="default: a recipe for each restorer on DPDD")
    parser.add_argument("--tflops", type=float, default=20.0, help="sustained rate of a GPU, 10^12 operations a second")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", help="measure steps there, instead of taking --tflops")
    parser.add_argument("--csv", default=RESULTS / "comparison_cost.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    rows = []
    for name in arguments.only or recipes():
        rows.append(cost(name, arguments))
        print(f"{name}: {rows[-1]['training_hours']} GPU hours", file=sys.stderr, flush=True)
    show(rows)
    save(rows, arguments.csv)


def recipes():
    """One recipe for each restorer, the paper's size of K3DN alone."""
    from k3dn_plugin.files import shared_names
    from k3dn_plugin.options import load_options
    found = {}
    for name in (file.removesuffix(".yml") for file in shared_names("options", "_dpdd.yml")):
        kind = load_options(name).network_g["type"]
        if kind not in found or name == "k3dn_dpdd":
            found[kind] = name
    return sorted(found.values())


def cost(name, arguments):
    import torch

    from k3dn_plugin.comparison.budget import counted_crop, seconds_of_steps
    from k3dn_plugin.evaluation.cost import count_macs
    from k3dn_plugin.options import load_options
    from k3dn_plugin.registry import ARCHS
    from k3dn_plugin.training.stages import plan_stages, share_stage
    options = load_options(name)
    stages = plan_stages(options)
    seconds = seconds_of_steps(stages, arguments.device, amp=options.training.amp) if arguments.device else None
    samples = work = traffic = touched = measured = 0
    for number, stage in enumerate(stages):
        for part, phase in enumerate(share_stage(stage, 1)):
            crop = counted_crop(stage, phase)
            with torch.device("meta"):
                macs = count_macs(ARCHS.build(stage.network_g), crop)
            seen = phase.iterations * phase.global_batch
            samples += seen
            work += BACKWARD * macs * seen
            traffic += seen * VIEWS * crop[0] * crop[1] * BYTES
            # A row of a crop lies within a row of the frame, and begins anywhere in a page.
            touched += seen * VIEWS * crop[0] * (1 + (crop[1] * BYTES - 1) / PAGE) * PAGE
            measured += seconds[number][part] * phase.iterations if seconds else 0
    with torch.device("meta"):
        frame = count_macs(ARCHS.build(stages[-1].network_g), FRAME)
    rate = arguments.tflops * 1e12
    duration = measured or 2 * work / rate
    return {"recipe": name, "stages": len(stages), "samples": samples, "training_PMACs": f"{work / 1e15:.1f}",
            "frame_GMACs": f"{frame / 1e9:.0f}", "training_hours": f"{duration / 3600:.1f}",
            "hours_of_all_seeds": f"{arguments.seeds * duration / 3600:.1f}",
            "scoring_hours": f"{2 * frame * TEST_FRAMES / rate / 3600:.3f}",
            "samples_per_second": f"{samples / duration:.1f}", "crops_MB_per_second": f"{traffic / duration / 1e6:.1f}",
            "pages_MB_per_second": f"{touched / duration / 1e6:.1f}", "seeds": arguments.seeds,
            "hours_from": f"measured on {arguments.device}" if seconds else f"{arguments.tflops:g} TFLOP/s"}


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
