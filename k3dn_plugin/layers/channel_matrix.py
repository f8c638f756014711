"""An invertible mixing of channels, kept as P L U so that both directions are cheap and stable."""
import torch
from torch import nn

from k3dn_plugin.layers.residual import at_least_float32


class InvertibleChannelMatrix(nn.Module):
    """M = P L U with a fixed permutation P (`docs/networks/k3dn.md`, section 5.2; after Kingma & Dhariwal, Glow).

    L has ones on its diagonal; the diagonal of U is sign_s * exp(log_s), so M can always be inverted.
    It starts as a random orthogonal matrix. Both directions are computed in float32 at least.

    Args:
        channels: C; M is (C, C).
    """

    def __init__(self, *, channels: int):
        super().__init__()
        orthogonal, _ = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
        p, lower, upper = torch.linalg.lu(orthogonal)
        diagonal = upper.diagonal()
        self.lower = nn.Parameter(lower.float())
        self.log_s = nn.Parameter(diagonal.abs().log().float())
        self.upper = nn.Parameter(upper.triu(1).float())
        self.p: torch.Tensor
        self.sign_s: torch.Tensor
        self.register_buffer("p", p.float())
        self.register_buffer("sign_s", diagonal.sign().float())

    def _factors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        lower, upper, log_s, sign_s, p = map(at_least_float32, (
            self.lower, self.upper, self.log_s, self.sign_s, self.p))
        lower = lower.tril(-1) + torch.eye(lower.shape[0], dtype=lower.dtype, device=lower.device)
        return lower, upper.triu(1) + torch.diag(sign_s * log_s.exp()), p

    def matrix(self) -> torch.Tensor:
        """M, (C, C): rows are output channels."""
        lower, upper, p = self._factors()
        return p @ lower @ upper

    def inverse(self) -> torch.Tensor:
        """M^-1 = U^-1 L^-1 P^T, by two triangular solves."""
        lower, upper, p = self._factors()
        inner = torch.linalg.solve_triangular(lower, p.T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, inner, upper=True)
