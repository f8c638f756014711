"""Does our network give what the published one gave? A manifest says what to build, load and feed; a golden
holds the published outputs, computed in float64.

A manifest lists every tensor of the official state dict with its shape and how to fill it: values depend
on the key alone, so a file of kilobytes stands for a checkpoint of any size. The weights go through the
same mapping as an official file (`zoo/formats/<family>.py`), strictly.
"""
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.files import read_file
from k3dn_plugin.zoo.formats.base import official_format

TOLERANCE = 1e-9


@dataclass(frozen=True)
class ParityReport:
    """Largest relative error of each output: max |ours - golden| / max |golden|."""

    network: str
    errors: dict[str, float]
    tolerance: float = TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether every output is within the tolerance (a NaN is not)."""
        return all(error <= self.tolerance for error in self.errors.values())


def check_parity(manifest_path: str | os.PathLike[str],
                 golden_path: str | os.PathLike[str] | None = None) -> ParityReport:
    """Build, load, run and compare.

    Args:
        manifest_path: `manifest.json`, or a folder that holds one.
        golden_path: `golden.npz`; if None, the one beside the manifest (`golden_x.npz` of a
            `manifest_x.json`).

    Raises:
        CheckpointError: a file is missing or not what it should be, the network is unknown, or the
            weights, inputs or outputs do not fit.
    """
    manifest_path = Path(manifest_path)
    if manifest_path.is_dir():
        manifest_path = manifest_path / "manifest.json"
    if golden_path is None:
        stem = manifest_path.stem
        variant = stem.removeprefix("manifest") if stem.startswith("manifest") else ""
        golden_path = manifest_path.with_name(f"golden{variant}.npz")
    golden_path = Path(golden_path)
    manifest, golden = read_manifest(manifest_path), read_golden(golden_path)
    network = manifest["arch"]
    known = official_format(network)
    name, manifest = _with_extra(manifest, golden_path.name)
    with torch.inference_mode():
        model = known.build(manifest["settings"], network).double()
        if manifest.get("tensors"):
            known.load(model, weights(manifest), network)
        inputs = {key: torch.as_tensor(np.ascontiguousarray(value))
                  for key, value in inputs_of(manifest).items()}
        outputs = known.outputs(model, inputs, name)
    return ParityReport(network, compare(outputs, golden, manifest, golden_path))


def _with_extra(manifest: dict[str, Any], golden_name: str) -> tuple[str, dict[str, Any]]:
    """Return `(output set, manifest)`: a golden listed under the manifest's `extra` has an input of its own.

    It may have settings of its own too, and an output set called `output`; else it holds the usual outputs.
    """
    extra = manifest.get("extra", {}).get(golden_name)
    if extra is None:
        return manifest["arch"], manifest
    own = {k: v for k, v in extra.items() if k not in ("what", "input", "output", "outputs")}
    name = f"{manifest['arch']}:{extra['output']}" if "output" in extra else manifest["arch"]
    return name, {**manifest, "inputs": [extra["input"]], "settings": {**manifest["settings"], **own}}


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest as a mapping; `CheckpointError` if it is missing or not one."""
    try:
        manifest = json.loads(read_file(path, error=CheckpointError))
        missing = [key for key in ("arch", "settings", "inputs") if key not in manifest]
        if missing:
            raise KeyError(missing[0])
        return manifest
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected a JSON manifest with `arch`, `settings`, `inputs` and "
                              f"`tensors` ({type(error).__name__}: {error})") from None


def read_golden(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the golden arrays by name; `CheckpointError` if the file is missing or damaged."""
    data = read_file(path, error=CheckpointError)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # whatever NumPy's reader and zipfile run into
        raise CheckpointError(f"{path}: not a readable .npz file ({str(error)[:150]})") from None


def _generator(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


def fill(key: str, shape: Sequence[int], how: Mapping[str, Any]) -> np.ndarray:
    """Return the values of one tensor, decided by its key: "normal", "uniform", "sign", "constant" or "values"."""
    random = _generator("weight:" + key)
    kind = how["kind"]
    if kind == "normal":
        return how["mean"] + how["std"] * random.standard_normal(shape)
    if kind == "uniform":
        return random.uniform(how["low"], how["high"], shape)
    if kind == "sign":
        return np.where(random.random(shape) < 0.5, -1.0, 1.0)
    if kind == "constant":
        return np.full(shape, how["value"], dtype=np.float64)
    if kind == "values":
        return np.asarray(how["values"], dtype=np.float64).reshape(shape)
    raise CheckpointError(f"{key}: unknown kind of values {kind!r} in the manifest")


def weights(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the official tensors, {key: array} in their own layout and dtype."""
    return {t["key"]: fill(t["key"], tuple(t["shape"]), t["init"]).astype(t.get("dtype", "float64"))
            for t in manifest["tensors"]}


def inputs_of(manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the inputs in PyTorch layout, {name: float64 array}, in the manifest's order."""
    made: dict[str, np.ndarray] = {}
    for spec in manifest["inputs"]:
        random = _generator("input:" + spec.get("seed", spec["name"]))
        array = random.uniform(spec.get("low", 0.0), spec.get("high", 1.0), tuple(spec["shape"]))
        made[spec["name"]] = _to_torch_layout(array, spec)
    return made


def _to_torch_layout(array: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    order = spec.get("torch_permute", spec.get("permute"))
    return array if order is None else np.transpose(array, order)


def compare(outputs: Mapping[str, torch.Tensor], golden: Mapping[str, np.ndarray], manifest: Mapping[str, Any],
            golden_path: str | os.PathLike[str]) -> dict[str, float]:
    """Return the largest relative error of each golden entry; outputs must have the same names and shapes."""
    layouts = {spec["name"]: spec for spec in manifest.get("outputs", [])}
    if set(outputs) != set(golden):
        raise CheckpointError(f"{golden_path} holds {', '.join(sorted(golden))}; the network gives "
                              f"{', '.join(sorted(outputs))}: is it the golden of this manifest?")
    errors: dict[str, float] = {}
    for name, wanted in golden.items():
        found = outputs[name].detach().double().cpu().numpy()
        wanted = _to_torch_layout(wanted.astype(np.float64), layouts.get(name, {}))
        if found.shape != wanted.shape:
            raise CheckpointError(f"{golden_path}: {name} has shape {wanted.shape}, the network gives "
                                  f"{found.shape}")
        errors[name] = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    return errors
