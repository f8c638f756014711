"""Every component stays on the device of its input, and in its precision: seen on the `meta` device.

A tensor made on the CPU in a forward pass makes a GPU wait for a copy; two devices in one operation fail there; float64
runs at a fraction of a GPU's speed. What is made once for a size and kept (a radial map, coordinates) may come from the
CPU, so each component is seen in its second pass.
"""
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import ARCHS, LOSSES, MODULES

META = torch.device("meta")
RESTORERS = [name for name in ARCHS.names() if ARCHS.get(name).__module__.startswith("k3dn_plugin.")]
WIDE = (torch.float64, torch.complex128)
# Means over boxes of every size by differences of sums over the whole image: those of float32 would lose a small box.
NEEDS_FLOAT64 = {"DepthReblur"}


class Watch(TorchDispatchMode):
    """Notes operations that make a tensor elsewhere, or in double precision."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                if tensor.device != META:
                    self.found.add(f"{function} makes a tensor of {tuple(tensor.shape)} on {tensor.device}")
                if tensor.dtype in WIDE:
                    self.found.add(f"{function} makes {tensor.dtype}")
        return made


def check(call, needs_float64=False):
    call()  # what is made once is made now
    with Watch() as watch:
        call()
    wide = {line for line in watch.found if str(torch.float64) in line}
    assert bool(wide) or not needs_float64, "it works without float64 now: take it out of NEEDS_FLOAT64"
    found = sorted(watch.found - wide if needs_float64 else watch.found)
    assert not found, found


def of_folder(folder):
    return [n for n in MODULES.names() if MODULES.get(n).__module__.startswith(f"k3dn_plugin.modules.{folder}.")]


def on_meta(registry, spec, **given):
    with META:
        module = registry.build(spec, **given)
    astray = [name for name, tensor in module.state_dict().items() if tensor.device != META]
    assert not astray, f"made on the CPU whatever the device: {astray[:5]}"
    return module


def image(*shape):
    return torch.rand(shape, device=META)


def batch_of(rows, columns, count=2):
    return {"lq": image(count, 6, rows, columns), "center": image(count, 3, rows, columns),
            "gt": image(count, 3, rows, columns), "defocus": image(count, 1, rows, columns),
            "disparity": image(count, 1, rows, columns), "name": [f"scene {i}" for i in range(count)]}


def test_what_is_watched_for_is_found():
    def astray():
        image(2, 2) + torch.ones(2, 2, dtype=torch.float64, device=META)
        torch.arange(3)
    with pytest.raises(AssertionError, match=r"(?s)makes a tensor of \(3,\) on cpu.*makes torch.float64"):
        check(astray)


@pytest.mark.parametrize("name", RESTORERS)
def test_restorers(name):
    restorer = on_meta(ARCHS, {"type": name, **ARCHS.get(name).tiny_arguments})
    batch = batch_of(*restorer.size_rule.padded(64, 64), count=1)
    if restorer.card.recurrent:
        batch = {key: value[:, None] if torch.is_tensor(value) else value for key, value in batch.items()}

    def evaluate():
        with torch.no_grad():
            restorer.eval()(batch["lq"].flatten(0, -4))

    def train():
        outputs = tree_leaves(restorer.train().training_outputs(batch))
        sum(out.float().mean() for out in outputs if torch.is_tensor(out) and out.requires_grad).backward()
    check(evaluate)
    check(train)


@pytest.mark.parametrize("name", of_folder("disparity"))
def test_disparity_modules(name):
    extra = {"pools": [6, 3]} if name == "CostVolumeDisparity" else {}
    module = on_meta(MODULES, {"type": name, **extra}, vector_size=12, window=(6, 10))
    check(lambda: module(image(1, 3, 96, 240), image(1, 3, 96, 240)))


@pytest.mark.parametrize("name", of_folder("deblur"))
def test_deblur_modules(name):
    module = on_meta(MODULES, {"type": name}, channels=8, vector_size=12)
    disparity = DisparityFeature(image(4, 12), (2, 2))
    check(lambda: module(image(1, 8, 12, 20), disparity))
    if module.reversible:
        check(lambda: module.reverse(image(1, 8, 12, 20), disparity))


@pytest.mark.parametrize("name", of_folder("preservation"))
def test_preservation_modules(name):
    module = on_meta(MODULES, {"type": name}, before_channels=6, after_channels=6)
    check(lambda: module(image(1, 6, 24, 32), image(1, 6, 24, 32)))


@pytest.mark.parametrize("name", of_folder("reblur"))
def test_reblur_modules(name):
    restorer = on_meta(ARCHS, {"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments})
    rows, columns = restorer.size_rule.padded(64, 64)
    batch, module = batch_of(rows, columns, 1), on_meta(MODULES, {"type": name})

    def reblur():
        prediction = {"restored": batch["gt"], "disparity": restorer.estimate_disparity(batch["lq"])}
        views = module(batch["gt"], ReblurGuidance(batch=batch, prediction=prediction, restorer=restorer))
        sum(view.mean() for view in views.values())
    check(reblur, name in NEEDS_FLOAT64)


@pytest.mark.parametrize("name", [n for n in of_folder("blur_map") if n != "FileBlurMap"])  # which reads files
def test_blur_maps(name):
    module = on_meta(MODULES, {"type": name})
    check(lambda: module(image(1, 6, 288, 336)))


@pytest.mark.parametrize("name", LOSSES.names())
def test_losses(name):
    batch = batch_of(16, 24)
    reblurred = {"left": image(2, 3, 16, 24), "center": image(2, 3, 16, 24)}
    half, quarter = image(2, 3, 8, 12), image(2, 3, 4, 6)
    prediction = {"restored": image(2, 3, 16, 24), "reblurred": reblurred, "scales": [half, quarter],
                  "warped_right": image(2, 3, 16, 24), "small_left": image(2, 3, 16, 24), "coc": image(2, 3, 16, 24),
                  "defocus": image(2, 1, 16, 24), "defocus_scales": [image(2, 1, 8, 12), image(2, 1, 16, 24)]}
    loss = on_meta(LOSSES, {"type": name, "weight": 1.0})
    check(lambda: loss(prediction, batch))
