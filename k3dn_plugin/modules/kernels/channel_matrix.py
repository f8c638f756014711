"""An invertible mixing of channels, kept as P L U so that both directions are cheap and stable."""
import torch
from torch import nn


class InvertibleChannelMatrix(nn.Module):
    """M = P L U with a fixed permutation P (specs of K3DN, section 5.2; after Kingma & Dhariwal, Glow).

    L has ones on its diagonal; the diagonal of U is sign_s * exp(log_s), so M can always be inverted.
    It starts as a random orthogonal matrix.

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
        self.register_buffer("p", p.float())
        self.register_buffer("sign_s", diagonal.sign().float())

    def _factors(self):
        eye = torch.eye(self.lower.shape[0], dtype=self.lower.dtype, device=self.lower.device)
        lower = self.lower.tril(-1) + eye
        upper = self.upper.triu(1) + torch.diag(self.sign_s * self.log_s.exp())
        return lower, upper, eye

    def matrix(self) -> torch.Tensor:
        """M, (C, C): rows are output channels."""
        lower, upper, _ = self._factors()
        return self.p @ lower @ upper

    def inverse(self) -> torch.Tensor:
        """M^-1 = U^-1 L^-1 P^T, by two triangular solves."""
        lower, upper, eye = self._factors()
        inner = torch.linalg.solve_triangular(lower, self.p.T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, inner, upper=True)
