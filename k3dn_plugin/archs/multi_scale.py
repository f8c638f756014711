"""What restorers that predict the image at three scales share."""
from abc import abstractmethod

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.layers.views import mean_of_views


class MultiScaleRestorer(Restorer):
    """A restorer that predicts the image at full, half and quarter size; only training needs the smaller two.

    A subclass writes `scales`.
    """

    @abstractmethod
    def scales(self, views: torch.Tensor, *, full_only: bool = False) -> list[torch.Tensor]:
        """Return the images of full, half and quarter size, or the first of them, in the network's range.

        Args:
            views: (B, 3V, H, W) of the card's V views at a legal size.
            full_only: leave out what only the smaller outputs need.
        """

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 3V, H, W) at a legal size -> (B, 3, H, W)."""
        return self.scales(views, full_only=True)[0]

    def training_outputs(self, batch: dict) -> dict:
        """Return `restored`, and `scales`: the images at 1/2 and 1/4 that a multi-scale loss reads."""
        # Whole, whatever windows or local means the instance evaluates with: hence the card's rule, not its own.
        views, crop = self.prepared(batch, rule=self.card.size_rule)
        full, *smaller = (self.network_output(image) for image in self.scales(views))
        return {"restored": crop(full), "scales": smaller}

    def residual(self, views: torch.Tensor) -> torch.Tensor:
        """Return the image that the output is added to: the view, or the mean of the two views."""
        return views if views.shape[1] == 3 else mean_of_views(views)
