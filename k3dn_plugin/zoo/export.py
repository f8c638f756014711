"""Restorers outside of Python: as ONNX files, and as programs of `torch.export`.

Both hold the whole restorer: views of any range in [0, 1] in, the image out, padding included.

>>> export_restorer(load_restorer("best.safetensors"), "net.onnx", size=(1120, 1680))      # doctest: +SKIP
"""
import importlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.errors import DependencyError, OptionError
from k3dn_plugin.files import atomic_write, user_path
from k3dn_plugin.inference.files import check_writable
from k3dn_plugin.zoo.load import LoadedRestorer

KINDS = {".onnx": "ONNX", ".pt2": "torch.export"}
TOLERANCE = 1e-4   # between PyTorch's output and the file's, of an image in [0, 1]
# Smallest sizes that are tried where sizes are dynamic. Means over windows are other computations below and above the
# window's size; a program holds one of them.
SMALLEST = (64, 512)
LARGEST = 16384
Size = tuple[int, int]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        difference: the largest of its output to PyTorch's, of an image in [0, 1].
        smallest: (rows, columns) that it takes; the only size where one was asked for.
    """

    difference: float
    smallest: Size


class Exportable(nn.Module):
    """A restorer as a function of tensors alone: `lq` (B, 6, H, W), then what else it reads by its `inputs`."""

    def __init__(self, restorer: Restorer) -> None:
        super().__init__()
        self.restorer = restorer
        self.inputs = ("lq", *(("center",) if "center" in restorer.card.views else ()), *restorer.maps)

    def forward(self, lq: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) in [0, 1] -> (B, 3, H, W), not clamped."""
        return self.restorer(lq, **dict(zip(self.inputs[1:], others)))


def export_restorer(loaded: LoadedRestorer, path: str | os.PathLike[str], *,
                    size: Size | Literal["dynamic"] = "dynamic") -> Exported:
    """Write a restorer as a file that runs without this package, and check it against PyTorch.

    Args:
        loaded: the restorer; exported in float32 on the CPU, whatever its inference settings say.
        path: `*.onnx`, or `*.pt2` for `torch.export.load`.
        size: (rows, columns) of the pairs, or "dynamic": any size that its size rule allows.

    Returns:
        how near the file comes to PyTorch on a random pair, and from which size on it works.

    Raises:
        OptionError: another suffix, or a restorer that cannot be exported so, with the reason.
        DependencyError: the extra [export] is not installed.
        StorageError: the file cannot be written.
    """
    path = user_path(path)
    if path.suffix not in KINDS:
        raise OptionError(f"{path}: expected a name that ends with {' or '.join(KINDS)}")
    restorer, name = loaded.restorer, type(loaded.restorer).__name__
    reason = restorer.card.no_onnx if path.suffix == ".onnx" else restorer.card.no_torch_export
    if reason:
        raise OptionError(f"{name} cannot be exported as {KINDS[path.suffix]}: {reason}")
    if path.suffix == ".onnx":
        check_onnx()
    network = Exportable(restorer.cpu().eval())
    if size != "dynamic" and not 1 <= min(size) <= max(size) <= LARGEST:
        raise OptionError(f"size: expected rows and columns from 1 to {LARGEST}, found {size[0]} x {size[1]}")
    check_writable(path)  # now, because tracing takes long
    if size == "dynamic":
        program, smallest = trace_all_sizes(network)
        rows, columns = restorer.size_rule.multiple
        examples = examples_of(network, (smallest[0] + rows, smallest[1] + 2 * columns))
    else:
        smallest, examples = size, examples_of(network, size)
        program = trace(network, examples)
    _write(program, network, path, loaded)
    difference = difference_to(network, path, examples)
    if not difference <= TOLERANCE:
        raise OptionError(f"{path}: its output differs from PyTorch's by {difference:.2g}, more than {TOLERANCE:g}; "
                          f"do not use it. Please report this with the versions that `k3dn doctor` prints")
    return Exported(difference, smallest)


def check_onnx() -> None:
    """Raise `DependencyError` unless the packages of the extra [export] are there."""
    try:
        for name in ("onnx", "onnxruntime", "onnxscript"):
            importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(f"ONNX files need the package {error.name}: "
                              "pip install \"k3dn_plugin[export]\"") from error


def trace_all_sizes(network: Exportable) -> tuple[torch.export.ExportedProgram, Size]:
    """Return a program for all legal sizes from a smallest one on, and that size.

    Raises:
        OptionError: it cannot be traced so.
    """
    for number, side in enumerate(SMALLEST, 1):
        smallest = network.restorer.size_rule.padded(side, side)
        try:
            return trace(network, examples_of(network, smallest), dynamic=True), smallest
        except OptionError:
            if number == len(SMALLEST):
                raise
    raise AssertionError


def trace(network: Exportable, examples: tuple[torch.Tensor, ...], *,
          dynamic: bool = False) -> torch.export.ExportedProgram:
    """Return the program that `torch.export` makes of a restorer.

    Args:
        examples: its inputs, (1, C, H, W) each.
        dynamic: let it take every height and width from those of the examples on that the size rule allows.

    Raises:
        OptionError: it cannot be traced so.
    """
    shapes: Any = None
    if dynamic:
        rule = network.restorer.size_rule
        axes: dict[int, Any] = {}
        for axis, (name, step) in enumerate(zip(("rows", "columns"), rule.multiple), 2):
            cells = torch.export.Dim(name, min=examples[0].shape[axis] // step, max=LARGEST // step)
            axes[axis] = cells if step == 1 else step * cells
        shapes = (axes, tuple(axes for _ in examples[1:])) if len(examples) > 1 else (axes,)
    try:
        with torch.no_grad():
            network(*examples)  # what is made once for a size is made outside the trace
            return torch.export.export(network, examples, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever the tracer finds that it cannot follow
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        advice = "give a fixed size (--size ROWS COLUMNS)" if dynamic else "it runs in PyTorch alone"
        raise OptionError(f"{type(network.restorer).__name__} cannot be exported"
                          f"{' for all sizes' if dynamic else ''}: {reason[:300]}; {advice}") from error


def difference_to(network: Exportable, path: Path, examples: tuple[torch.Tensor, ...]) -> float:
    """Return the largest difference between what a file and PyTorch make of the examples."""
    with torch.no_grad():
        wanted = network(*examples)
        if path.suffix == ".pt2":
            found = torch.export.load(path).module()(*examples)
        else:
            onnxruntime: Any = importlib.import_module("onnxruntime")  # optional, see `check_onnx`
            session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
            given: dict[str, np.ndarray] = {name: one.numpy() for name, one in zip(network.inputs, examples)}
            found = torch.as_tensor(session.run(None, given)[0])
    return (found - wanted).abs().max().item() if found.shape == wanted.shape else float("inf")


def _write(program: torch.export.ExportedProgram, network: Exportable, path: Path, loaded: LoadedRestorer) -> None:
    facts: dict[str, Any] = {"restorer": type(loaded.restorer).__name__, "weights_hash": loaded.weights_hash,
                             "provenance": dict(loaded.provenance), "inputs": list(network.inputs)}
    if path.suffix == ".pt2":
        # Into memory first: torch has errors of its own for paths that cannot be written.
        archive = io.BytesIO()
        torch.export.save(program, archive, extra_files={"k3dn.json": json.dumps(facts, default=str)})
        with atomic_write(path) as file:
            file.write(archive.getbuffer())
        return
    exported: Any = torch.onnx
    made = exported.export(program, dynamo=True, verbose=False, input_names=list(network.inputs),
                             output_names=["restored"])
    assert made is not None
    model = made.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = "k3dn", json.dumps(facts, default=str)
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


def examples_of(network: Exportable, shape: Size) -> tuple[torch.Tensor, ...]:
    """Return random inputs of a network, (1, C, rows, columns) each in [0, 1], the same at every call."""
    generator = torch.Generator().manual_seed(0)
    channels = [{"lq": 6, "center": 3}.get(name, 1) for name in network.inputs]
    return tuple(torch.rand(1, count, *shape, generator=generator) for count in channels)
