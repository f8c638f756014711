"""Makes torchvision importable beside a CPU build of torch.

PyPI has torchvision's CUDA build alone; it expects two operators whose schemas only its own compiled library
defines, and stops with `operator torchvision::nms does not exist`. Nothing here calls these operators.
"""
import torch

SCHEMAS = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
           "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_libraries = []  # a library's definitions go when it is collected


def define_missing_operators() -> None:
    """Define the schemas that are missing; does nothing where torchvision works, or a second time."""
    missing = [s for s in SCHEMAS if not hasattr(torch.ops.torchvision, s.split("(")[0])]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in missing:
            library.define(schema)
        _libraries.append(library)
