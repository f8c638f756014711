"""Doing nothing: the blurred center view as it is, which every restorer has to beat."""
from typing import ClassVar

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard

DO_NOTHING = "center"  # in the place of a weights file


class CenterView(Restorer):
    """Gives the captured center view, or the mean of the views, unchanged. Not registered: it learns nothing."""

    card: ClassVar[RestorerCard] = RestorerCard(
        title="center view (does nothing)", paper="none", year=2026, venue="none", official_license="none: ours",
        views=("center",), tiling="exact", receptive_margin=0, view_order_matters=False)

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> the same."""
        return views
