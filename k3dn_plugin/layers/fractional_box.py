"""Means over a box of its own for each pixel, of fractional size: differentiable in the size."""
import torch


def box_mean(images: torch.Tensor, top: torch.Tensor, bottom: torch.Tensor, left: torch.Tensor,
             right: torch.Tensor) -> torch.Tensor:
    """Return the mean of each channel over a rectangle for each pixel, by an integral image.

    Edges are in pixels: pixel (y, x) covers [y, y + 1) x [x, x + 1), and a rectangle that covers part of a pixel
    counts that part. Rectangles are cut off at the border of the image.

    Args:
        images: (B, C, H, W).
        top, bottom, left, right: (B, 1, H, W), edges of the rectangle, top < bottom and left < right.

    Returns:
        (B, C, H, W).
    """
    height, width = images.shape[-2:]
    # In float64: differences of sums over the whole image would lose what a small box holds.
    integral = torch.nn.functional.pad(images.double().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    rows = [edge.clamp(0, height) for edge in (top, bottom)]
    columns = [edge.clamp(0, width) for edge in (left, right)]
    total = (_at(integral, rows[1], columns[1]) - _at(integral, rows[0], columns[1])
             - _at(integral, rows[1], columns[0]) + _at(integral, rows[0], columns[0]))
    area = (rows[1] - rows[0]) * (columns[1] - columns[0])
    return (total / area.double()).to(images.dtype)


def _at(integral: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """The integral image between its points: bilinear, which is exact for pixels of constant value."""
    batch, channels, height, width = integral.shape
    r0, c0 = row.detach().floor().clamp(max=height - 2), column.detach().floor().clamp(max=width - 2)
    fr, fc = (row - r0).double(), (column - c0).double()
    flat = integral.flatten(2)
    corner = (r0 * width + c0).long().flatten(2).expand(-1, channels, -1)

    def pick(offset: int) -> torch.Tensor:
        return flat.gather(2, corner + offset).view(batch, channels, *row.shape[-2:])

    upper = pick(0) * (1 - fc) + pick(1) * fc
    lower = pick(width) * (1 - fc) + pick(width + 1) * fc
    return upper * (1 - fr) + lower * fr
