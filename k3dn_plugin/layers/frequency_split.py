"""Features split into low and high frequencies and put together again with other weights (SFNet).

Cui et al.: Selective Frequency Network for Image Restoration (ICLR 2023); docs/networks/sfnet.md, section 4.
Means are the coarsest low-pass; a predicted kernel, one for several channels, is a finer one. Means, batch norm
and softmax are taken in float32 at least, whatever autocast says.
"""
import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.layers.image_filter import filter_images
from k3dn_plugin.layers.residual import at_least_float32, without_autocast

LEAST_HIDDEN = 32


class VectorNorm(nn.BatchNorm2d):
    """Batch norm of vectors, (N, C, 1, 1).

    A batch of one vector has no variance. It is normalized by the running statistics, which it leaves as they
    are, so that crops can be trained one at a time.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1) -> the same shape."""
        if self.training and x.shape[0] == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


class MeanSplit(nn.Module):
    """low x mean + (1 + high) x (x - mean), with two weights a channel that start at zero.

    `docs/networks/sfnet.md`, section 4.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.zeros(channels))
        self.high = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Return the recombined features.

        Args:
            x: (B, C, H, W).
            mean: of x: (B, C, 1, 1), or (B, C, H, W) where it is local.
        """
        mean = mean.to(x.dtype)
        low, high = (weight[:, None, None] for weight in (self.low, self.high))
        return low * mean + (high + 1) * (x - mean)


class FrequencySplit(nn.Module):
    """A low-pass kernel predicted from the features, its complement, and how much of each to keep.

    The features' mean predicts a k x k kernel for each group of channels, whose taps sum to one; what it passes
    is the low part, the rest the high part. A bottleneck on the mean weighs both, by one softmax over all their
    channels (`docs/networks/sfnet.md`, section 4.3).

    Args:
        channels: n, a multiple of `groups`.
        kernel_size: k, odd.
        groups: kernels.
    """

    def __init__(self, channels: int, kernel_size: int, *, groups: int = 8) -> None:
        super().__init__()
        self.kernel_size, self.groups = kernel_size, groups
        hidden = max(channels // 2, LEAST_HIDDEN)
        self.predict = nn.Conv2d(channels, groups * kernel_size ** 2, 1, bias=False)
        nn.init.kaiming_normal_(self.predict.weight, mode="fan_out", nonlinearity="relu")
        self.norm = VectorNorm(groups * kernel_size ** 2)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.high = nn.Conv2d(hidden, channels, 1)
        self.low = nn.Conv2d(hidden, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    @property
    def radius(self) -> int:
        """Pixels that the kernels reach to each side."""
        return self.kernel_size // 2

    @property
    def hidden(self) -> int:
        """Width of the bottleneck."""
        return self.squeeze.out_channels

    def forward(self, x: torch.Tensor, *, padded: torch.Tensor | None = None, mean: torch.Tensor | None = None,
                query: torch.Tensor | None = None, code: torch.Tensor | None = None) -> torch.Tensor:
        """Return the recombined features.

        Args:
            x: (N, n, h, w).
            padded: (N, n, h + k - 1, w + k - 1), x with what the kernels see around it; by reflection if None.
            mean: what decides on low and high: (N, n, 1, 1) or (N, n, h, w); the mean of x if None.
            query: (N, groups k k, 1, 1) to add to the logits of the kernels' taps.
            code: (N, hidden, 1, 1) to add to the bottleneck.
        """
        if padded is None:
            padded = F.pad(x, (self.radius,) * 4, mode="reflect")
        whole = map_mean(x)
        low = filter_images(padded, self.kernels(whole, query).to(x.dtype))
        keep_high, keep_low = self.weights(whole if mean is None else mean, code)
        return self.out((x - low) * keep_high.to(x.dtype) + low * keep_low.to(x.dtype))

    def kernels(self, mean: torch.Tensor, query: torch.Tensor | None = None) -> torch.Tensor:
        """Return (N, groups, k, k) kernels whose taps sum to one, from (N, n, 1, 1) means."""
        with without_autocast(mean):
            logits = self.norm(self.predict(mean.to(self.predict.weight.dtype)))
            if query is not None:
                logits = logits + query.to(logits.dtype)
            taps = at_least_float32(logits).view(-1, self.groups, self.kernel_size ** 2).softmax(-1)
        return taps.unflatten(-1, (self.kernel_size, self.kernel_size))

    def weights(self, mean: torch.Tensor, code: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weights of the high and of the low part, in the shape of `mean`; all 2n sum to one."""
        with without_autocast(mean):
            hidden = self.squeeze(mean.to(self.squeeze.weight.dtype))
            if code is not None:
                hidden = hidden + code.to(hidden.dtype)
            both = torch.cat([self.high(hidden), self.low(hidden)], 1)
            high, low = at_least_float32(both).softmax(1).chunk(2, 1)
        return high, low


def map_mean(x: torch.Tensor) -> torch.Tensor:
    """Return the mean of (..., H, W) over all pixels, (..., 1, 1), in float32 at least."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    return x.mean((-2, -1), keepdim=True, dtype=torch.float32 if half else None)
