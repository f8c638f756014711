"""The one adapter between a batch and a network: views, order, range, size.

A restorer writes `restore(views)` at sizes and in the range its card declares; whoever calls it passes
`lq` (left RGB, then right RGB, in [0, 1], any size) and gets the restored image at that size. `Restorer.prepared` is
what stands between: inference and training both go through it.
"""
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import ComponentError, SizeError
from k3dn_plugin.layers.views import mean_of_views
from k3dn_plugin.layers.windows import pad_to

Crop = Callable[[torch.Tensor], torch.Tensor]


class Restorer(nn.Module, ABC):
    """Base of every restorer. A subclass sets `card` and writes `restore`; one without them cannot be built.

    Attributes:
        card: what the rest of the toolbox reads about it.
        tiny_arguments: constructor arguments of an instance small enough for the tests, which ask every
            registered restorer the same questions.
        slots: names of the constructor's arguments that are parts (a mapping with `type`, or null), which a module
            matrix may exchange.
    """

    card: ClassVar[RestorerCard]
    tiny_arguments: ClassVar[dict] = {}
    slots: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *arguments: object, **named: object) -> "Restorer":
        """Refuse a class that lacks what every restorer has, before its constructor runs."""
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing or not isinstance(getattr(cls, "card", None), RestorerCard):
            what = " and ".join([f"`{name}`" for name in missing] or ["`card`"])
            raise ComponentError(f"{cls.__name__} is a restorer without {what}: expected a class attribute `card` (a "
                            "RestorerCard) and a method `restore(views)`. Write what is missing (docs/contributing.md)")
        return super().__new__(cls)

    @property
    def size_rule(self) -> SizeRule:
        """Sizes that `restore` takes; override where they depend on the settings."""
        return self.card.size_rule

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps (B, 1, H, W) that `forward` takes by keyword besides the views; mostly none."""
        return ()

    def maps_of(self, sample: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return the sample's maps, (1, h, w) by the names of `maps`; a restorer with any overrides it."""
        return {}

    def to(self, *arguments: Any, memory_format: torch.memory_format | None = None, **given: Any) -> "Restorer":
        """Move or convert as `nn.Module.to`; a memory format is given to the weights that can have it.

        `nn.Module.to` asks it of every tensor of four or five dimensions, which fails where a network has 3-D
        convolutions besides 2-D ones, and would reorder tensors that are no weights of convolutions.
        """
        super().to(*arguments, **given)
        if memory_format is not None:
            of_volumes = (torch.channels_last_3d if memory_format == torch.channels_last else memory_format)
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                    module.weight.data = module.weight.data.contiguous(memory_format=memory_format)
                elif isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
                    module.weight.data = module.weight.data.contiguous(memory_format=of_volumes)
        return self

    def maps_hash(self) -> str:
        """Return what identifies maps from outside the data, which decide a score as weights do; empty for none."""
        return ""

    @abstractmethod
    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3V, H, W) of the card's V views, in its order and range, at a legal size -> (B, 3, H, W)."""

    def forward(self, lq: torch.Tensor, center: torch.Tensor | None = None) -> torch.Tensor:
        """Restore the all-in-focus image.

        Args:
            lq: (B, 6, H, W) in [0, 1], left RGB then right RGB, any H and W.
            center: (B, 3, H, W) in [0, 1], the captured combined view; the mean of the views if None.

        Returns:
            (B, 3, H, W) in the units of [0, 1], not clamped.

        Raises:
            SizeError: `lq` or `center` has another shape.
        """
        views, crop = self.prepared({"lq": lq, "center": center})
        return crop(self.network_output(self.restore(views)))

    def prepared(self, batch: Mapping[str, Any], *, rule: SizeRule | None = None) -> tuple[torch.Tensor, Crop]:
        """Return what the network reads of a batch, and what cuts its maps back to the batch's size.

        Args:
            batch: `lq` (B, 6, H, W) in [0, 1] and, where captured, `center` (B, 3, H, W).
            rule: sizes to pad to; None for `size_rule`.

        Returns:
            the card's views (B, 3V, h, w) in its order and range, padded by reflection at the bottom and on the right
            to a size that the rule allows; and `crop`, which takes (..., h, w) to (..., H, W).

        Raises:
            SizeError: `lq` or `center` has another shape.
        """
        views = self.network_input(batch["lq"], batch.get("center"))
        height, width = views.shape[-2:]
        if isinstance(height, torch.SymInt) or isinstance(width, torch.SymInt):
            return views, lambda image: image  # traced for all sizes that the rule allows, which need no padding
        padded = pad_to(views, (rule or self.size_rule).padded(height, width))
        return padded, lambda image: image[..., :height, :width]

    def training_outputs(self, batch: dict) -> dict:
        """Return what the losses read: `restored`, and what else the network predicts in training."""
        return {"restored": self(batch["lq"], batch.get("center"))}

    def after_iteration(self) -> None:
        """Called by the training loop after each optimizer step, for what changes with the iterations."""

    def network_input(self, lq: torch.Tensor, center: torch.Tensor | None = None) -> torch.Tensor:
        """Return the card's views of a batch, stacked in its order and mapped to its range (not yet padded)."""
        check_pair(lq, center)
        left, right = lq[:, :3], lq[:, 3:]
        if center is None and "center" in self.card.views:
            center = mean_of_views(lq)
        views = {"left": left, "right": right, "center": center}
        chosen = [views[name] for name in self.card.views]
        if self.card.channel_order == "bgr":
            chosen = [view.flip(1) for view in chosen]
        low, high = self.card.value_range
        stacked = torch.cat(chosen, 1)
        return stacked if (low, high) == (0.0, 1.0) else stacked * (high - low) + low

    def network_output(self, image: torch.Tensor) -> torch.Tensor:
        """Return the inverse of `network_input` for the restored image: to RGB in the units of [0, 1]."""
        low, high = self.card.value_range
        if (low, high) != (0.0, 1.0):
            image = (image - low) / (high - low)
        return image.flip(1) if self.card.channel_order == "bgr" else image


def check_pair(lq: torch.Tensor, center: torch.Tensor | None = None) -> None:
    """Raise `SizeError` unless `lq` is (B, 6, H, W) and `center`, where given, (B, 3, H, W)."""
    if lq.ndim != 4 or lq.shape[1] != 6:
        raise SizeError(f"lq: expected (B, 6, H, W), left RGB then right RGB; found {tuple(lq.shape)}. "
                        "Stack the views along the channels: torch.cat([left, right], 1)")
    if center is not None and center.shape != (lq.shape[0], 3, *lq.shape[2:]):
        raise SizeError(f"center: expected {(lq.shape[0], 3, *lq.shape[2:])} to go with lq "
                        f"{tuple(lq.shape)}; found {tuple(center.shape)}")


def blank_maps(restorer: nn.Module, lq: torch.Tensor) -> dict[str, torch.Tensor]:
    """Zeros for the maps that a restorer takes besides the views, for measurements in which values do not matter."""
    return {name: lq.new_zeros(lq.shape[0], 1, *lq.shape[-2:]) for name in getattr(restorer, "maps", ())}
