"""What is installed, missing or broken, each with its fix."""
import importlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from k3dn_plugin import registry
from k3dn_plugin.doctor import Finding
from k3dn_plugin.errors import K3DNError

NEEDED = {"torch": "torch", "mmengine": "mmengine", "lmdb": "lmdb", "cv2": "opencv-python", "numpy": "numpy",
          "addict": "addict", "yaml": "PyYAML", "pydantic": "pydantic", "safetensors": "safetensors", "h5py": "h5py",
          "skimage": "scikit-image", "scipy": "scipy", "jinja2": "jinja2", "tqdm": "tqdm", "tabulate": "tabulate",
          "cachetools": "cachetools", "PIL": "pillow", "tifffile": "tifffile", "matplotlib": "matplotlib"}
OPTIONAL = {"rawpy": "rawpy (views out of camera raw files: the extra [raw])",
            "pyarrow": "pyarrow (data sets as Parquet files: the extra [parquet])",
            "ray": "ray (comparisons on a cluster: the extra [cluster])",
            "gradio": "gradio (the page of k3dn app: the extra [app])",
            "tensorboard": "tensorboard (curves while training)", "pytest": "pytest (make test)",
            "lpips": "lpips (the metrics lpips_*)"}
FIX_CV2 = ("OpenCV needs libGL, which bare machines lack: apt install libgl1 libglib2.0-0, or "
            "pip install opencv-python-headless in its place")


def examine() -> list[Finding]:
    """Look at everything; nothing raises, what fails becomes a finding."""
    findings = [_python(), *(_package(module, name) for module, name in NEEDED.items())]
    findings += [_optional(module, name) for module, name in OPTIONAL.items()]
    return [*findings, _device(), _basicsr(), *_registries(), *_room()]


def report(findings: Sequence[Finding], well: str = "all that is needed works") -> str:
    """Return the findings as lines, the fixes below those that need one; at the end `well`, if there is none."""
    marks = {"ok": "ok     ", "note": "note   ", "missing": "MISSING", "broken": "BROKEN "}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]}  {finding.what:22} {finding.detail}")
        if finding.fix:
            lines.append(f"{'':33}fix: {finding.fix}")
    harmful = [f.what for f in findings if f.harmful]
    lines.append(f"{len(harmful)} to fix: {', '.join(harmful)}" if harmful else well)
    return "\n".join(lines)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < (3, 10):  # noqa: UP036 - a checkout runs with any Python
        return Finding("python", "broken", f"{version}, needed: 3.10 or later", "install a newer Python")
    return Finding("python", "ok", f"{version} at {sys.executable}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown version"


def _package(module: str, name: str) -> Finding:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            return Finding(name, "missing", "not installed", f"pip install {name}, or make setup")
        return Finding(name, "broken", str(error), f"pip install {error.name}")
    except Exception as error:  # a broken binary fails in any way it likes
        fix = FIX_CV2 if module == "cv2" else f"pip install --force-reinstall {name}"
        return Finding(name, "broken", f"{type(error).__name__}: {error}", fix)
    return Finding(name, "ok", _version(name))


def _optional(module: str, name: str) -> Finding:
    found = importlib.util.find_spec(module) is not None
    return Finding(name.split()[0], "ok" if found else "note",
                   "installed" if found else f"not installed; optional: {name}")


def _device() -> Finding:
    try:
        import torch  # a torch that is broken is a finding
    except Exception:
        return Finding("device", "note", "unknown, torch does not import")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Finding("device", "ok", f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of "
                                       f"{total / 2**30:.1f} GiB free, CUDA {torch.version.cuda}")
    return Finding("device", "note", f"no GPU; training uses {torch.get_num_threads()} CPU threads")


def _basicsr() -> Finding:
    if sys.version_info >= (3, 13):
        return Finding("basicsr bridge", "note", "basicsr does not build on Python 3.13 and later; all else works")
    try:
        # Importing the bridge connects it, and may fail: that is a finding.
        from k3dn_plugin.bridges.basicsr import basicsr_registries
        if basicsr_registries() is None:
            return Finding("basicsr bridge", "note", "basicsr is not installed; only the bridge needs it",
                           "pip install cython torchvision && pip install --no-build-isolation basicsr==1.4.2")
    except K3DNError as error:
        return Finding("basicsr bridge", "broken", str(error), "make clean setup")
    except Exception as error:
        return Finding("basicsr bridge", "broken", f"{type(error).__name__}: {error}", "make clean setup")
    return Finding("basicsr bridge", "ok", f"basicsr {_version('basicsr')}, torchvision {_version('torchvision')}")


def _registries() -> Iterator[Finding]:
    for name, one in registry.REGISTRIES.items():
        try:
            names = one.names()
            yield Finding(name, "ok" if names else "broken", f"{len(names)} registered")
        except Exception as error:
            yield Finding(name, "broken", f"{type(error).__name__}: {error}",
                          "a component's file does not import; see the error")
    for entry, error in registry.broken_entry_points().items():
        yield Finding(f"entry point {entry}", "broken", error, "repair or remove the package that declares it")


def _room() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding("disk", "ok" if free > 2 else "note", f"{free:.1f} GiB free here",
                  "" if free > 2 else "a DPDD store takes about 16 GiB, a run some GiB")
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total / 2**20
        small = size < 256
        yield Finding("shared memory", "note" if small else "ok", f"{size:,.0f} MiB in /dev/shm",
                      "loader workers pass batches through it: docker run --shm-size=1g, or "
                      "datasets.train.num_worker_per_gpu=0" if small else "")
    yield Finding("cores", "ok", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                                     else os.cpu_count()))
