"""Any restorer followed by any preservation module, at image level.

K3DN joins features from before and after deblurring so that what was in focus stays as it was. The same module after
another restorer joins the blurred center view and the restored image; ours, for comparison.
"""
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.layers.views import mean_of_views
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.registry import ARCHS, MODULES

MARGIN = 16  # pixels that the join looks around itself


@ARCHS.register_module()
class PreservedRestorer(Restorer):
    """The restored image plus a correction that a preservation module's joined features give.

    It starts as the restorer alone: the last convolution is zero.

    Args:
        restorer: a mapping with `type`, any registered restorer, and its arguments.
        preservation: a mapping with `type`, any registered preservation module, and its arguments.
        channels: features of the blurred and of the restored image.
    """

    card: RestorerCard = RestorerCard(  # an instance's own, by what it wraps
        title="a restorer with preservation", paper="ours; preservation: Yang et al., K3DN", year=2023,
        venue="CVPR", official_license="none: ours", tiling="approximate",
        notes="Everything else is what the wrapped restorer says.")

    tiny_arguments: ClassVar[dict] = {
        "restorer": {"type": "DRBNetDual", "width": 4, "kernel_size": 3},
        "preservation": {"type": "GatedSkip"}, "channels": 4}

    def __init__(self, *, restorer: dict[str, Any], preservation: dict[str, Any], channels: int = 16):
        super().__init__()
        self.restorer = ARCHS.build(restorer)
        inner = self.restorer.card
        self.card = dataclasses.replace(
            inner, title=f"{inner.title} with {preservation['type']}", bfloat16_db=None,
            receptive_margin=inner.receptive_margin + MARGIN, recipe_source="ours",
            tiling="unsafe" if inner.tiling == "unsafe" else "approximate")
        self.before = nn.Conv2d(3, channels, 3, padding=1)
        self.after = nn.Conv2d(3, channels, 3, padding=1)
        self.preservation = MODULES.build(preservation, before_channels=channels, after_channels=channels)
        self.out = nn.Conv2d(self.preservation.out_channels, 3, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    @property
    def size_rule(self) -> SizeRule:
        """That of the wrapped restorer; the join takes any size."""
        return self.restorer.size_rule

    @property
    def maps(self) -> tuple[str, ...]:
        """Those of the wrapped restorer."""
        return self.restorer.maps

    def maps_of(self, sample: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Return those of the wrapped restorer."""
        return self.restorer.maps_of(sample)

    def maps_hash(self) -> str:
        """Return that of the wrapped restorer."""
        return self.restorer.maps_hash()

    def forward(self, lq: torch.Tensor, center: torch.Tensor | None = None, **maps: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W) -> (B, 3, H, W): what the wrapped restorer gives, joined; it gets the maps that it names."""
        return self.join(lq, center, self.restorer(lq, center, **maps))

    def training_outputs(self, batch: dict) -> dict:
        """Return those of the wrapped restorer, `restored` after the join."""
        prediction = self.restorer.training_outputs(batch)
        restored = self.join(batch["lq"], batch.get("center"), prediction["restored"])
        return {**prediction, "restored": restored}

    def reblur(self, sharp: torch.Tensor, disparity: DisparityFeature) -> torch.Tensor:
        """Return that of the wrapped restorer, where it has one (K3DN)."""
        return self.restorer.reblur(sharp, disparity)

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3V, H, W) of the wrapped restorer's views -> (B, 3, H, W), both in its range and order.

        The mean of the views stands for the center view.
        """
        mean = views.unflatten(1, (-1, 3)).mean(1)
        images = [self.network_output(image) for image in (mean, self.restorer.restore(views))]
        joined = self._corrected(*images)
        if self.card.channel_order == "bgr":
            joined = joined.flip(1)
        low, high = self.card.value_range
        return joined * (high - low) + low

    def join(self, lq: torch.Tensor, center: torch.Tensor | None, restored: torch.Tensor) -> torch.Tensor:
        """Return the restored image (B, 3, H, W), or a sequence of them, with the correction added."""
        if center is None:
            center = mean_of_views(lq)
        flat = self._corrected(center.flatten(0, -4), restored.flatten(0, -4))
        return flat.view(restored.shape)

    def _corrected(self, blurred: torch.Tensor, restored: torch.Tensor) -> torch.Tensor:
        features = self.preservation(self.before(blurred - 0.5), self.after(restored - 0.5))
        return restored + self.out(features)
