"""Small restorers and dual-pixel pairs for the tests of evaluation, registered as a user's own would be."""
import torch
from torch import nn
from torch.nn import functional as F

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.registry import ARCHS

FACTS = {"title": "a test", "paper": "none", "year": 2026, "venue": "none", "official_license": "none"}


@ARCHS.register_module()
class EvaluationIdentity(Restorer):
    """Gives the center view back."""

    card = RestorerCard(**FACTS, views=("center",), size_rule=SizeRule((16, 8), (32, 16)), receptive_margin=0,
                        view_order_matters=False)

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def restore(self, views):
        return views * self.gain


@ARCHS.register_module()
class EvaluationConv(Restorer):
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


class TinyPairs:
    """Dual-pixel pairs from blocks of noise: blurred views shifted apart, and the truth."""

    def __init__(self, count=3, size=(60, 84), groups=()):
        self.count, self.size, self.groups = count, size, groups

    def __len__(self):
        return self.count

    def fingerprint(self):
        return f"tiny {self.count} {self.size}"

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        blocks = torch.rand(1, 3, self.size[0] // 6 + 1, self.size[1] // 6 + 1, generator=generator)
        gt = F.interpolate(blocks, scale_factor=6, mode="nearest")[0, :, :self.size[0], :self.size[1]]
        gt = (gt * 65535).round() / 65535
        blurred = F.avg_pool2d(F.pad(gt[None], (2, 2, 2, 2), mode="replicate"), 5, stride=1)[0]
        left, right = blurred.roll(1, -1), blurred.roll(-1, -1)
        sample = {"lq": torch.cat([left, right]), "center": (left + right) / 2, "gt": gt,
                  "name": f"scene_{index:02d}"}
        if self.groups:
            sample["group"] = self.groups[index]
        return sample
