"""What losses share: where in the prediction and the batch they look.

A loss declares the keys of the prediction that it reads as `reads`, a tuple on the class or the instance; one
without may read anything.
"""
from typing import Any

import torch
from torch import nn

from k3dn_plugin.errors import OptionError, SizeError


class PairLoss(nn.Module):
    """A weighted distance between one image of the prediction and one of the batch.

    Subclasses write `distance(predicted, target) -> scalar`.

    Args:
        weight: factor on the distance.
        predicted: key of the prediction; a dot looks inside (`reblurred.center`).
        target: key of the batch.
    """

    def __init__(self, *, weight: float = 1.0, predicted: str = "restored", target: str = "gt"):
        super().__init__()
        self.weight = weight
        self.predicted = predicted
        self.target = target
        self.reads = (predicted.split(".")[0],)  # keys of the prediction

    def forward(self, prediction: dict, batch: dict) -> torch.Tensor:
        """Return the weighted distance.

        Raises:
            OptionError: the network does not predict `predicted`, or the data has no `target`.
            SizeError: the two images differ in shape.
        """
        image = look_up(prediction, self.predicted, self, "the network's prediction")
        target = look_up(batch, self.target, self, "the batch")
        if image.shape != target.shape:
            raise SizeError(f"{type(self).__name__}: {self.predicted} is {tuple(image.shape)}, "
                            f"{self.target} is {tuple(target.shape)}; they must agree")
        return self.weight * self.distance(image, target)

    def distance(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return a scalar that is 0 where the images agree."""
        raise TypeError(f"{type(self).__name__} must define distance()")


def look_up(mapping: Any, dotted: str, loss: nn.Module, where: str) -> Any:
    """Return the entry of nested mappings under `a.b`, or an `OptionError` that lists what there is."""
    found = mapping
    for key in dotted.split("."):
        if not isinstance(found, dict) or key not in found:
            have = ", ".join(sorted(found)) if isinstance(found, dict) else type(found).__name__
            hint = (" A reblurred view comes from `train.reblur`." if "reblurred" in dotted else "")
            raise OptionError(f"{type(loss).__name__} reads {dotted!r}, but {where} has: {have}.{hint}")
        found = found[key]
    return found
