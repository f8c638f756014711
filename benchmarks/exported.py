"""Latency of a restorer in PyTorch, and as the files that `k3dn export` writes: `python benchmarks/exported.py`.

Each recipe's network is exported for one size in both ways, which checks the files against PyTorch (`difference`); then
all three restore the same pair in turns, in float32 on the CPU.

    python benchmarks/exported.py --recipes k3dn_s_dpdd --size 576 672
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.recipes import network_of  # noqa: E402
from benchmarks.table import RESULTS, busy, cores, save, show  # noqa: E402
from k3dn_plugin.commands import run_tool  # noqa: E402

FILES = {"torch.export": "net.pt2", "ONNX Runtime": "net.onnx"}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", metavar="NAME",
                        default=["k3dn_s_dpdd", "k3dn_dpdd", "drbnet_dual_dpdd", "ifan_dual_dpdd", "nafnet_dual_dpdd"])
    parser.add_argument("--size", nargs=2, type=int, default=(288, 336), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--rounds", type=int, default=7, help="rounds; the median counts")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--csv", default=RESULTS / "exported.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    import torch
    torch.set_num_threads(arguments.threads)
    rows = []
    for recipe in arguments.recipes:
        print(recipe, file=sys.stderr)
        rows += rows_of(recipe, tuple(arguments.size), arguments.rounds, arguments.threads)
    show(rows)
    save(rows, arguments.csv, packages=("torch", "onnxruntime", "numpy"))


def rows_of(recipe, size, rounds, threads):
    """The rows of one recipe's network: as it is, and by file."""
    import torch

    from k3dn_plugin.evaluation.measure import measured_in_turns
    from k3dn_plugin.zoo.export import Exportable, examples_of, export_restorer
    from k3dn_plugin.zoo.load import load_restorer

    network = network_of(recipe).to(memory_format=torch.channels_last)   # as from a file
    loaded = load_restorer(network, device="cpu")
    as_it_is = Exportable(loaded.restorer)
    views = examples_of(as_it_is, size)
    ways, facts = {"PyTorch": lambda: as_it_is(*views)}, {}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for way, name in FILES.items():
            began = time.perf_counter()
            exported = export_restorer(loaded, Path(folder) / name, size=size)
            facts[way] = {"export_s": round(time.perf_counter() - began, 1),
                          "MiB": round((Path(folder) / name).stat().st_size / 2 ** 20, 1),
                          "difference": f"{exported.difference:.1e}"}
        program = torch.export.load(Path(folder) / FILES["torch.export"]).module()
        ways["torch.export"] = lambda: program(*views)
        ways["ONNX Runtime"] = session_of(Path(folder) / FILES["ONNX Runtime"], as_it_is.inputs, views, threads)
        load = busy()
        found = measured_in_turns({way: lambda call=call: call for way, call in ways.items()}, rounds=rounds)
    plain = found["PyTorch"]
    nothing = dict.fromkeys(facts["torch.export"], "-")
    return [{"recipe": recipe, "ran_as": "{} x {}".format(*loaded.restorer.size_rule.padded(*size)), "way": way,
             **facts.get(way, nothing), "seconds": round(one.median_seconds, 4),
             "cpu_seconds": round(one.median_cpu, 4),
             "times_faster": round(plain.median_seconds / one.median_seconds, 2),
             "times_faster_cpu": round(plain.median_cpu / one.median_cpu, 2), "threads": threads, "load": load}
            for way, one in found.items()]


def session_of(path, inputs, views, threads):
    """What runs an ONNX file on the views."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {name: view.numpy() for name, view in zip(inputs, views)}
    return lambda: session.run(None, given)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
