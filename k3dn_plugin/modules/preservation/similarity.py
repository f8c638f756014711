"""How alike each position is to its neighbours, in two feature maps."""
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


def local_similarity(query: torch.Tensor, key: torch.Tensor, radius: int = 4) -> torch.Tensor:
    """Mean over channels of query times shifted key, for every shift up to `radius`.

    The *mean* is what the published operator computes; a sum would be C times larger.

    Args:
        query, key: (B, C, H, W).

    Returns:
        (B, (2 radius + 1)^2, H, W): row shifts slow, column shifts fast, from (-radius, -radius) on;
        zero where the shifted key lies outside.
    """
    height, width = query.shape[-2:]
    padded = F.pad(key, (radius,) * 4)
    # Shift by shift: no (B, C, 81, H, W) tensor ever exists.
    maps = [(query * padded[..., i:i + height, j:j + width]).mean(1)
            for i in range(2 * radius + 1) for j in range(2 * radius + 1)]
    return torch.stack(maps, 1)


def local_similarity_lean(query: torch.Tensor, key: torch.Tensor, radius: int = 4) -> torch.Tensor:
    """`local_similarity` for training: the backward pass recomputes the products.

    Kept for the backward pass, the 81 shifted products would be the memory peak of the whole network.
    """
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad):
        return checkpoint(local_similarity, query, key, radius, use_reentrant=False)
    return local_similarity(query, key, radius)
