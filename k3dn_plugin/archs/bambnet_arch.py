"""BaMBNet: blur-aware multi-branch network (Liang, Jiang, Liu, Ma, IEEE/CAA J. Autom. Sinica 2022).

Four branches of growing capacity over one stem. In the first 20000 training steps each branch is shown the
pixels of its own range of blur, by masks from a circle-of-confusion (CoC) map that fade out; afterwards,
and in evaluation, all branches act everywhere and no map is needed. The CoC network has the same layers
and is trained without labels. The published evaluation restores DPDD's frames whole, in BGR; its sizes are
multiples of 16, to which other sizes are padded by reflection here.
"""
from typing import ClassVar

import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.branch_network import STRIDE, BranchNetwork, CoCNetwork
from k3dn_plugin.layers.windows import pad_to
from k3dn_plugin.registry import ARCHS


@ARCHS.register_module()
class BaMBNet(Restorer):
    """The deblurring network and, if asked for, the CoC network whose maps mask its branches in training.

    In training mode the masks come from the CoC network, else from the batch's `coc` (B, 1 or 3, H, W),
    radii in pixels, signed or not; without either there are none. Evaluation never masks.

    Args:
        width, blocks, reduction: as in `BranchNetwork`; the defaults are published.
        coc_network: hold a CoC network (under `coc.`); train it first, in a stage of its own.
        mask_iterations: training steps over which the masks fade; 0 for no masks.
        mask_thresholds: radii in pixels at which the next branch takes over, one fewer than branches. The
            published ones come from a meta-learning procedure that was not released.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="BaMBNet", bfloat16_db=56.4,
        paper="Liang, Jiang, Liu, Ma: BaMBNet: A Blur-Aware Multi-Branch Network for Dual-Pixel Defocus "
              "Deblurring",
        year=2022, venue="IEEE/CAA Journal of Automatica Sinica", official_license="CC BY-NC 4.0",
        views=("left", "right"), channel_order="bgr", size_rule=SizeRule(multiple=(STRIDE, STRIDE)),
        # The channel attention takes means over the whole image.
        tiling="approximate", receptive_margin=96, recipe_source="official code",
        notes="The sigmoid at the end predicts the sharp image itself. `mask_step` counts the training steps "
              "of the masks and is stored with the weights, so that a resumed run goes on with them; "
              "official files have none and start at 0.")

    tiny_arguments: ClassVar[dict] = {"width": 16, "blocks": [1, 1], "reduction": 1,
                                      "mask_thresholds": [2.0, 4.0]}

    def __init__(self, *, width: int = 64, blocks: tuple[int, ...] = (1, 2, 3), reduction: int = 16,
                 coc_network: bool = False, mask_iterations: int = 20000,
                 mask_thresholds: tuple[float, ...] = (1.9, 4.2, 6.2)):
        super().__init__()
        thresholds = list(mask_thresholds)
        if len(thresholds) != len(blocks) or sorted(thresholds) != thresholds or min(thresholds) <= 0:
            raise OptionError(f"BaMBNet.mask_thresholds: expected {len(blocks)} positive radii in rising "
                              f"order, one for each of `blocks`; found {thresholds}")
        if mask_iterations < 0:
            raise OptionError(f"BaMBNet.mask_iterations: expected 0 or more, found {mask_iterations}")
        self.mask_iterations = mask_iterations
        self.mask_thresholds = tuple(thresholds)
        self.network = BranchNetwork(width=width, blocks=tuple(blocks), reduction=reduction)
        self.coc = CoCNetwork(width=width, blocks=blocks, reduction=reduction) if coc_network else None
        self.mask_step: torch.Tensor
        self.register_buffer("mask_step", torch.zeros((), dtype=torch.int64))

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W), BGR in [0, 1], at a legal size -> (B, 3, H, W) in (0, 1)."""
        return torch.sigmoid(self.network(views))

    def training_outputs(self, batch: dict) -> dict:
        """Return `restored`, and `coc` (B, 3, H, W), BGR, signed pixels, where there is a CoC network.

        In training mode masks fade with the iterations (`after_iteration`), of which there are as many as optimizer
        steps, however many batches are accumulated for one.
        """
        views, crop = self.prepared(batch)
        coc = self.coc(views) if self.coc is not None else None
        shares = None
        if self.training and self.mask_iterations:
            radius = batch.get("coc") if coc is None else coc.detach()
            if radius is not None:
                if radius.ndim != 4:
                    raise SizeError("coc: expected (B, 1 or 3, H, W), radii in pixels; found "
                                    f"{tuple(radius.shape)}")
                shares = self.shares(pad_to(radius, views.shape[-2:]), self.mask_step + 1)
        image = torch.sigmoid(self.network(views, shares))
        prediction = {"restored": crop(self.network_output(image))}
        if coc is not None:
            prediction["coc"] = crop(coc)
        return prediction

    def after_iteration(self) -> None:
        """Count a step of the masks."""
        if self.mask_iterations:
            self.mask_step += 1

    def shares(self, radius: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """Return how much of each branch a pixel is shown: (B, branches, H, W), w mask + 1 - w with w falling from
        1 as exp(-(2 step / mask_iterations)^2), and 0 from `mask_iterations` on.

        Args:
            radius: (B, C, H, W) in pixels; the largest magnitude of the channels counts.
            step: training step, a tensor without dimensions.
        """
        magnitude = radius.abs().amax(1, keepdim=True)
        edges = magnitude.new_tensor(self.mask_thresholds)
        branch = torch.bucketize(magnitude.contiguous(), edges, right=True)
        numbers = torch.arange(len(edges) + 1, device=branch.device).view(1, -1, 1, 1)
        # Published in float32, whatever the network's precision.
        weight = torch.exp(-(2 * step.float() / self.mask_iterations) ** 2)
        weight = torch.where(step < self.mask_iterations, weight, torch.zeros_like(weight))
        return weight * (branch == numbers).to(magnitude.dtype) + (1 - weight)
