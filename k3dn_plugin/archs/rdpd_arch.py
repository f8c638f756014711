"""RDPD: recurrent dual-pixel deblurring (Abuolaim, Delbracio, Kelly, Brown, Milanfar, ICCV 2021).

DPDNet's U-net at half width, run on each frame of a sequence, with a convolutional LSTM at the bottom; an
image is a sequence of one frame. A seventh channel tells each pixel's distance from the middle of the
frame. The published evaluation feeds 8-bit BGR frames, padded on both sides by reflection (edge pixel
repeated) to a multiple of 16, and its clip to [0, 1] is part of the network, in training too.
"""
import math
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from k3dn_plugin.archs.base import Restorer, check_pair
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.constants import made_once
from k3dn_plugin.layers.keras import RepeatUp, double_conv, initialize_as_keras
from k3dn_plugin.registry import ARCHS

STRIDE = 16
LEVELS = 4


class LSTMState(NamedTuple):
    """What one frame leaves to the next: (B, C, h, w) each."""

    hidden: torch.Tensor
    cell: torch.Tensor


def hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """clip(0.2 x + 0.5, 0, 1), that of old Keras; torch's and later Keras's have a slope of 1/6."""
    return (0.2 * x + 0.5).clamp(0, 1)


class ConvLSTM(nn.Module):
    """Keras's ConvLSTM2D: gates in the order input, forget, candidate, output; no peephole.

    Args:
        channels: of input, hidden state and cell.
        dropout: share of the input's elements dropped in training, with a mask of its own for each gate,
            kept over all frames.
    """

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.conv_x = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        self.conv_h = nn.Conv2d(channels, 4 * channels, 3, padding=1, bias=False)
        self.dropout = dropout

    def forward(self, frames: torch.Tensor,
                state: LSTMState | None = None) -> tuple[torch.Tensor, LSTMState]:
        """(B, T, C, h, w), and the state that an earlier call gave -> the same shape, and the state."""
        hidden: torch.Tensor | None
        cell: torch.Tensor | None
        hidden, cell = state if state is not None else (None, None)
        if hidden is None and self.training:
            # Nothing comes of the zero state, but every parameter has to take part in every step.
            hidden = cell = torch.zeros_like(frames[:, 0])
        outputs = []
        for gates in self.input_gates(frames).unbind(1):
            if hidden is not None:
                gates = gates + self.conv_h(hidden)
            enter, forget, candidate, leave = gates.chunk(4, 1)
            new = hard_sigmoid(enter) * torch.tanh(candidate)
            cell = new if cell is None else hard_sigmoid(forget) * cell + new
            hidden = hard_sigmoid(leave) * torch.tanh(cell)
            outputs.append(hidden)
        assert hidden is not None and cell is not None, "a sequence has at least one frame"
        return torch.stack(outputs, 1), LSTMState(hidden, cell)

    def input_gates(self, frames: torch.Tensor) -> torch.Tensor:
        """Return what the input adds to the gates, (B, T, 4C, h, w)."""
        batch, time, channels = frames.shape[:3]
        if not self.training or self.dropout == 0:
            return self.conv_x(frames.flatten(0, 1)).unflatten(0, (batch, time))
        kept = torch.ones_like(frames[:, :1])
        assert self.conv_x.bias is not None
        gates = [F.conv2d((frames * F.dropout(kept, self.dropout)).flatten(0, 1), weight, bias, padding=1)
                 for weight, bias in zip(self.conv_x.weight.chunk(4), self.conv_x.bias.chunk(4))]
        return torch.cat(gates, 1).unflatten(0, (batch, time))


@ARCHS.register_module()
class RDPD(Restorer):
    """Restores (B, 6, H, W), or sequences (B, T, 6, H, W). The defaults are the published network.

    Args:
        width: of the first level; each of the four below has twice as many channels.
        radial: feed the distance from the middle of the frame as a seventh channel (published).
        output: "clip" (published) or "sigmoid" after the last layer.
        dropout: on the LSTM's input, in training.
    """

    card: ClassVar[RestorerCard] = RestorerCard(
        title="RDPD", bfloat16_db=41.8,
        paper="Abuolaim, Delbracio, Kelly, Brown, Milanfar: Learning to Reduce Defocus Blur by Realistically "
              "Modeling Dual-Pixel Data",
        year=2021, venue="ICCV", official_license="Apache-2.0", views=("left", "right"), channel_order="bgr",
        size_rule=SizeRule(multiple=(STRIDE, STRIDE)),
        # A tile does not know where in the frame it lies, which the radial channel tells.
        tiling="unsafe", receptive_margin=96, recipe_source="official code", recurrent=True,
        notes="RDPD+ is the same network, trained on DPDD and synthetic sequences. Nothing is remembered at a "
              "first frame, so the convolution of the memory is left out there. A training crop's place "
              "in its frame enters by the batch's `window`, (B, 4) of top, left, frame height and frame "
              "width; without it the crop counts as a frame.")

    tiny_arguments: ClassVar[dict] = {"width": 8}

    def __init__(self, *, width: int = 32, radial: bool = True, output: Literal["clip", "sigmoid"] = "clip",
                 dropout: float = 0.4):
        super().__init__()
        if width < 1 or not 0 <= dropout < 1:
            raise OptionError(f"RDPD: expected a positive width and a dropout in [0, 1); found {width} and "
                              f"{dropout}")
        if output not in ("clip", "sigmoid"):
            raise OptionError(f"RDPD.output: expected 'clip' or 'sigmoid', found {output!r}")
        self.radial = radial
        self.output = output
        widths = [width * 2 ** level for level in range(LEVELS + 1)]
        before = [7 if radial else 6, *widths]
        self.encoder = nn.ModuleList(double_conv(before[i], widths[i]) for i in range(LEVELS))
        self.bottom = nn.Conv2d(widths[-2], widths[-1], 3, padding=1)
        self.lstm = ConvLSTM(widths[-1], dropout)
        self.up = nn.ModuleList(RepeatUp(widths[i + 1], widths[i]) for i in reversed(range(LEVELS)))
        self.decoder = nn.ModuleList(double_conv(2 * widths[i], widths[i]) for i in reversed(range(LEVELS)))
        self.colours = nn.Conv2d(width, 3, 3, padding=1)
        self.out = nn.Conv2d(3, 3, 1)
        self._initialize()

    def forward(self, lq: torch.Tensor, center: torch.Tensor | None = None,
                window: torch.Tensor | None = None) -> torch.Tensor:
        """Restore one frame or a sequence.

        Args:
            lq: (B, 6, H, W) or (B, T, 6, H, W) in [0, 1], left RGB then right RGB.
            center: not used.
            window: (B, 4), top, left, frame height, frame width of crops; None for whole frames.

        Returns:
            (B, 3, H, W) or (B, T, 3, H, W).

        Raises:
            SizeError: `lq` or `center` has another shape.
        """
        if lq.ndim == 5:
            return self.restore_sequence(lq, window=window)[0]
        check_pair(lq, center)
        return self.restore_sequence(lq[:, None], window=window)[0][:, 0]

    def training_outputs(self, batch: dict) -> dict:
        """Return `restored`, a frame or a sequence as `lq` is."""
        return {"restored": self(batch["lq"], window=batch.get("window"))}

    def restore(self, views: torch.Tensor) -> torch.Tensor:
        """(B, 6, H, W), BGR in [0, 1], at a legal size, a whole frame -> (B, 3, H, W)."""
        return self.run(self.with_radial(views[:, None]))[0][:, 0]

    def restore_sequence(self, lq: torch.Tensor, state: LSTMState | None = None, *,
                         window: torch.Tensor | None = None) -> tuple[torch.Tensor, LSTMState]:
        """(B, T, 6, H, W) -> (B, T, 3, H, W) and the state for the next call, so that a long video can go
        frame by frame in constant memory.

        Raises:
            SizeError: `lq` has another shape.
        """
        if lq.ndim != 5 or lq.shape[2] != 6:
            raise SizeError("lq: expected (B, T, 6, H, W), left RGB then right RGB; found "
                            f"{tuple(lq.shape)}")
        batch, time = lq.shape[:2]
        height, width = lq.shape[-2:]
        views = self.network_input(lq.flatten(0, 1)).unflatten(0, (batch, time))
        frames, (top, left) = pad_both_sides(self.with_radial(views, window), STRIDE)
        images, state = self.run(frames, state)
        images = images[..., top:top + height, left:left + width]
        return self.network_output(images.flatten(0, 1)).unflatten(0, (batch, time)), state

    def with_radial(self, views: torch.Tensor, window: torch.Tensor | None = None) -> torch.Tensor:
        """Return (B, T, 6, H, W) with the radial channel behind, where the network has one."""
        if not self.radial:
            return views
        batch, time, _, height, width = views.shape
        if window is None:
            places = [(0, 0, height, width)]
        else:
            if window.shape != (batch, 4):
                raise SizeError(f"window: expected ({batch}, 4), top, left, frame height and frame width of "
                                f"each crop; found {tuple(window.shape)}")
            places = [tuple(int(v) for v in row) for row in window]
        distance = torch.stack([_radial_map(rows, columns, views.device, views.dtype)[
            top:top + height, left:left + width] for top, left, rows, columns in places])
        distance = distance[:, None, None].expand(batch, time, 1, height, width)
        return torch.cat([views, distance], 2)

    def run(self, frames: torch.Tensor, state: LSTMState | None = None) -> tuple[torch.Tensor, LSTMState]:
        """(B, T, 7, H, W) at a legal size -> (B, T, 3, H, W), BGR, and the LSTM's state."""
        batch, time = frames.shape[:2]
        x = frames.flatten(0, 1)
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x, after = self.lstm(F.relu(self.bottom(x)).unflatten(0, (batch, time)), state)
        x = x.flatten(0, 1)
        for up, level in zip(self.up, self.decoder):
            x = level(torch.cat([skips.pop(), up(x)], 1))
        image = self.out(F.relu(self.colours(x)))
        image = image.clamp(0, 1) if self.output == "clip" else torch.sigmoid(image)
        return image.unflatten(0, (batch, time)), after

    def _initialize(self) -> None:
        """As Keras: truncated He normal kernels, orthogonal recurrent one, forget bias 1, Glorot last."""
        initialize_as_keras(self, last=self.out)
        recurrent, channels = self.lstm.conv_h.weight, self.lstm.conv_h.in_channels
        with torch.no_grad():
            flat = torch.empty(9 * channels, 4 * channels)
            nn.init.orthogonal_(flat)
            recurrent.copy_(flat.view(3, 3, channels, 4 * channels).permute(3, 2, 0, 1))
            assert self.lstm.conv_x.bias is not None
            self.lstm.conv_x.bias[channels:2 * channels] = 1


def radial_distance(height: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Return (H, W) float64: distance from (H/2, W/2) over that of the top left pixel, in steps of 1/255."""
    rows = torch.arange(height, dtype=torch.float64, device=device) - height / 2
    columns = torch.arange(width, dtype=torch.float64, device=device) - width / 2
    distance = torch.sqrt(rows[:, None] ** 2 + columns ** 2) / math.hypot(height / 2, width / 2)
    return torch.round(255 * distance) / 255


@made_once(8)
def _radial_map(height: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """The radial distance of a whole frame, made once on the CPU: crops are cut from few sizes of frames."""
    return radial_distance(height, width).to(dtype).to(device)


def pad_both_sides(frames: torch.Tensor, multiple: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Pad (..., H, W) to a multiple, half on each side, by reflection that repeats the edge pixel.

    Returns:
        The padded frames, and the (rows, columns) before the first; these get one more of an odd number.
    """
    before = []
    for axis in (-2, -1):
        have = frames.shape[axis]
        extra = -have % multiple
        before.append((extra + 1) // 2)
        if extra:
            index = torch.arange(-before[-1], have + extra - before[-1], device=frames.device) % (2 * have)
            frames = frames.index_select(axis, torch.where(index < have, index, 2 * have - 1 - index))
    return frames, tuple(before)
