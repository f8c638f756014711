"""K3DN's reblurring regularisation: the kernels that deblur, run backwards, must reblur."""
from typing import Literal

import torch
from torch import nn

from k3dn_plugin.errors import OptionError
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import MODULES


@MODULES.register_module()
class KernelSetReblur(nn.Module):
    """Turn the all-in-focus image back into the blurred one with the restorer's own kernels.

    Uses no parameter of its own: the restorer runs its deblur module in the reverse direction, with the
    disparity feature of the blurred pair (K3DN, reblurring regularisation module).

    Args:
        view: which captured view the result is compared with. The paper does not say; the network has
            one three-channel output, so it is the center view or one of the two.
    """

    # What may be combined with it: only a restorer whose deblur module is reversible.
    reverses_deblur = True

    def __init__(self, *, view: Literal["center", "left", "right"] = "center"):
        super().__init__()
        self.view = view

    def forward(self, sharp: torch.Tensor, guidance: ReblurGuidance) -> dict[str, torch.Tensor]:
        """(B, 3, H, W) in [0, 1] -> `{view: (B, 3, H, W)}`.

        Raises:
            OptionError: the restorer has no reversible deblur module.
        """
        reblur = getattr(guidance.restorer, "reblur", None)
        if reblur is None or "disparity" not in guidance.prediction:
            raise OptionError(
                f"KernelSetReblur reverses the restorer's deblur module, which "
                f"{type(guidance.restorer).__name__} does not have. Use it with K3DN and a reversible "
                "deblur module (KernelSetDeblur, WienerDeblur), or set train.reblur to another module or "
                "to null")
        return {self.view: reblur(sharp, guidance.prediction["disparity"])}
