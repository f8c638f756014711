"""What restorers on Restormer's U share (Restormer, LaKDNet, DiNAT-IR; the parts are in `layers/u_levels.py`)."""
import torch
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import SizeRule
from k3dn_plugin.layers.u_levels import through_levels


class UShapedRestorer(Restorer):
    """A restorer that embeds the views, runs them through the U and a refinement, and predicts the image.

    A subclass builds the members; with `skip`, a convolution of the embedding, the image itself is predicted, without
    what is to be added to the view.
    """

    embed: nn.Module
    encoder: nn.ModuleList
    down: nn.ModuleList
    up: nn.ModuleList
    reduce: nn.ModuleList
    decoder: nn.ModuleList
    refinement: nn.Module
    skip: nn.Module | None
    out: nn.Module

    @property
    def size_rule(self) -> SizeRule:
        """Each level but the first halves the size."""
        return SizeRule(multiple=(2 ** len(self.down),) * 2)

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3 or 6, H, W) in [0, 1] at a legal size -> (B, 3, H, W), not clamped."""
        embedded = self.embed(views)
        x = self.refinement(through_levels(embedded, self))
        return self.out(x) + views if self.skip is None else self.out(x + self.skip(embedded))
