"""Small restorers for the tests of inference, registered as a user's own would be."""
import torch
from torch import nn

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.registry import ARCHS

FACTS = {"title": "a test", "paper": "none", "year": 2026, "venue": "none", "official_licence": "none"}


@ARCHS.register_module()
class InferenceIdentity(Restorer):
    """Gives the center view back."""

    card = RestorerCard(**FACTS, views=("center",), size_rule=SizeRule((16, 8), (32, 16)), receptive_margin=0,
                        view_order_matters=False)

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def restore(self, views):
        return views * self.gain


@ARCHS.register_module()
class InferenceConv(Restorer):
    """Convolutions with a stride of 4, whose phase tiles have to keep, and 17 pixels of sight."""

    card = RestorerCard(**FACTS, size_rule=SizeRule((4, 4), (8, 8)), receptive_margin=17)

    def __init__(self, *, channels: int = 8):
        super().__init__()
        self.down = nn.Conv2d(6, channels, 4, stride=4)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.up = nn.ConvTranspose2d(channels, 3, 4, stride=4)
        self.wide = nn.Conv2d(6, 3, 9, padding=4)

    def restore(self, views):
        return self.up(torch.relu(self.inner(torch.relu(self.down(views))))) + self.wide(views)
