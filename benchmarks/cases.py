"""What `benchmarks/against.py` times, in a process of its own: `python benchmarks/cases.py CHECKOUT then|now`.

Names of cases come by standard input, one a line; a line of JSON answers each. The cases reach into the package by
whatever name a part has in that checkout, so that an older one can be timed. The process is prepared as that checkout
prepares the process of a command: the newer side soon waits asleep and keeps freed memory.
"""
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

LEVELS = {"1": (54, 288, 336), "2": (96, 144, 168), "3": (192, 72, 84)}   # K3DN-L's skips: channels, rows, columns


def similarity(now, level, backward):
    import torch
    try:
        from k3dn_plugin.layers.local_similarity import local_similarity
    except ImportError:  # before the layers had a folder of their own
        from k3dn_plugin.modules.preservation.similarity import local_similarity
    channels, rows, columns = LEVELS[level]
    query, key = (torch.rand(1, channels, rows, columns, requires_grad=backward) for _ in range(2))
    grad = torch.rand(1, 81, rows, columns)

    def step():
        found = local_similarity(query, key)
        if backward:
            torch.autograd.grad(found, (query, key), grad)
    return step, f"{channels} x {rows} x {columns}"


def forward(now, checkout, recipe, size, fast=False, ordered=False):
    """A forward pass of a recipe's network.

    On the newer side alone, `fast` takes bfloat16 and channels last; `ordered`, channels last, as weights from a
    file get it.
    """
    import torch

    restorer = network(checkout, recipe).eval()
    shape = restorer.size_rule.padded(*size)
    pair = torch.rand(1, 6, *shape)
    fast = fast and now
    if fast or (ordered and now):
        restorer.to(memory_format=torch.channels_last)

    def step():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16) if fast else nullcontext():
            restorer(pair)
    return step, "{} x {}".format(*shape)


def training_step(now, checkout, recipe, crop, batch):
    import torch
    restorer = network(checkout, recipe).train()
    optimizer = torch.optim.AdamW(restorer.parameters(), lr=1e-4)
    pair = torch.rand(batch, 6, *crop)

    def step():
        loss = (restorer(pair) - pair[:, :3]).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return step, "{} x {} x {}".format(batch, *restorer.size_rule.padded(*crop))


def network(checkout, recipe):
    import torch

    from k3dn_plugin.options import load_options
    from k3dn_plugin.registry import ARCHS
    torch.manual_seed(0)
    return ARCHS.build(load_options(str(checkout / "options" / f"{recipe}.yml")).network_g)


CASES = {
    **{f"similarity_{level}": lambda now, _, level=level: similarity(now, level, False) for level in LEVELS},
    **{f"similarity_backward_{level}": lambda now, _, level=level: similarity(now, level, True) for level in LEVELS},
    "k3dn_demo_step": lambda now, checkout: training_step(now, checkout, "k3dn_demo", (96, 96), 8),
    "k3dn_l": lambda now, checkout: forward(now, checkout, "k3dn_dpdd", (288, 336)),
    "k3dn_l_fast": lambda now, checkout: forward(now, checkout, "k3dn_dpdd", (288, 336), fast=True),
    "k3dn_s": lambda now, checkout: forward(now, checkout, "k3dn_s_dpdd", (288, 336)),
    "k3dn_m": lambda now, checkout: forward(now, checkout, "k3dn_m_dpdd", (288, 336)),
    "drbnet": lambda now, checkout: forward(now, checkout, "drbnet_dual_dpdd", (288, 336)),
    "ifan": lambda now, checkout: forward(now, checkout, "ifan_dual_dpdd", (288, 336)),
    "drbnet_as_restored": lambda now, checkout: forward(now, checkout, "drbnet_dual_dpdd", (288, 336), ordered=True),
    "ifan_as_restored": lambda now, checkout: forward(now, checkout, "ifan_dual_dpdd", (288, 336), ordered=True),
    "restormer": lambda now, checkout: forward(now, checkout, "restormer_dpdd", (288, 336)),
}


def serve(checkout, label):
    import resource
    try:
        from k3dn_plugin.commands._process import prepare_process
        prepare_process()  # as a command's process is prepared, before torch is there
    except ImportError:  # an older checkout, which had nothing to prepare
        pass
    ready = {}
    for line in sys.stdin:
        case = line.strip()
        if case not in ready:
            ready = {case: CASES[case](label == "now", checkout)}
            check_origin(checkout)
        step, size = ready[case]
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "size": size,
                          "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


def check_origin(checkout):
    """Stop where a module of the package comes from another checkout than the one that is timed."""
    strange = [f"{name} ({module.__file__})" for name, module in list(sys.modules.items())
               if name.partition(".")[0] == "k3dn_plugin" and getattr(module, "__file__", None)
               and not Path(module.__file__).resolve().is_relative_to(checkout.resolve())]
    if strange:
        raise SystemExit(f"error: timing {checkout}, but these modules lie elsewhere: {', '.join(strange)}")


if __name__ == "__main__":
    # The folder of this file would otherwise come first, and the package of this checkout with it; an editable
    # installation would answer for every module that an older checkout lacks.
    sys.path[:] = [sys.argv[1], *(entry for entry in sys.path[1:])]
    sys.meta_path[:] = [finder for finder in sys.meta_path
                        if not getattr(finder, "__module__", "").startswith("__editable__")]
    serve(Path(sys.argv[1]), sys.argv[2])
