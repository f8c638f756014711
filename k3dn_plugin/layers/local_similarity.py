"""How alike each position is to its neighbours, in two feature maps."""
import torch
import torch.nn.functional as F

from k3dn_plugin.layers.macs import record_macs

# Rows at a time: the products of a strip stay in the processor's cache and are freed at once.
STRIP = 32


def local_similarity(query: torch.Tensor, key: torch.Tensor, radius: int = 4) -> torch.Tensor:
    """Mean over channels of query times shifted key, for every shift up to `radius`.

    The *mean* is what the published operator computes; a sum would be C times larger. No
    (B, C, 81, H, W) tensor ever exists: the products are made shift by shift, and the backward pass keeps
    the two inputs alone.

    Args:
        query, key: (B, C, H, W).

    Returns:
        (B, (2 radius + 1)^2, H, W): row shifts slow, column shifts fast, from (-radius, -radius) on;
        zero where the shifted key lies outside.
    """
    height, width = query.shape[-2:]
    padded = F.pad(key, (radius,) * 4)
    shifts = range(2 * radius + 1)
    record_macs(query.numel() * len(shifts) ** 2)
    strips = []
    for top in range(0, height, STRIP):
        part = query[..., top:top + STRIP, :]
        rows = part.shape[-2]
        near = padded[..., top:top + rows + 2 * radius, :]
        strips.append(torch.stack([(part * near[..., i:i + rows, j:j + width]).mean(1)
                                   for i in shifts for j in shifts], 1))
    return torch.cat(strips, 2)
