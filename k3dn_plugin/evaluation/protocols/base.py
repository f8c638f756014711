"""What an evaluation protocol fixes, and the one that the others vary.

A score is meaningless without it: reading 8 bits instead of 16 costs about 0.04 dB on DPDD, another SSIM
moves the third decimal, resizing the input blurs it. So a protocol has a name, its name is stored with
every score, and scores of two protocols never stand in one table.
"""
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch

from k3dn_plugin.data.card import DatasetCard
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.registry import METRICS
from k3dn_plugin.simulation.color import linear_to_srgb, srgb_to_linear

VIEW_KEYS = ("lq", "center")


class EvaluationProtocol:
    """Whole frames in their own bit depth, clamped floats, DPDNet's metrics; subclasses vary this.

    Args:
        extra_metrics: names of registered metrics to compute beside the protocol's own.

    Attributes (what is fixed, in words, stored with the scores):
        name: as registered.
        source: whose evaluation this is.
        reading: how frames become floats. size: what happens to their size. output: what happens to the
            restored image before it is scored.
        bit_depth: that the stored frames must have, or None for any.
        linear: whether frames are linear light. Networks are trained on sRGB-encoded images, so such frames are
            encoded before they are fed and decoded before they are scored; frames that are not are refused.
        usual_for: names of data sets (of their manifests) whose usual protocol this is.
        metrics: settings of the protocol's metrics, by registered name; the first one ranks.
    """

    name: ClassVar[str] = ""
    source: ClassVar[str] = ""
    reading: ClassVar[str] = "frames as stored, divided by their full scale"
    size: ClassVar[str] = "whole frames"
    output: ClassVar[str] = "clamped to [0, 1], float, not quantised"
    bit_depth: ClassVar[int | None] = None
    linear: ClassVar[bool] = False
    usual_for: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[dict[str, dict]] = {"psnr": {}, "ssim_uniform7": {}, "mae": {}}

    def __init__(self, *, extra_metrics: tuple[str, ...] = ()):
        names = dict.fromkeys((*self.metrics, *extra_metrics))
        self.scorers = {name: METRICS.build({"type": name, **self.metrics.get(name, {})}) for name in names}

    def facts(self) -> dict:
        """Return the protocol in plain data, as stored with every score."""
        return {"name": self.name, "source": self.source, "reading": self.reading, "size": self.size,
                "output": self.output, "light": self.light,
                "metrics": {name: self.metrics.get(name, {}) for name in self.scorers}}

    @property
    def light(self) -> str:
        """In which light the restorer is fed and its output is scored, in words."""
        return ("fed sRGB-encoded, decoded again and scored in linear light" if self.linear
                else "fed and scored sRGB-encoded, as stored")

    def check(self, card: DatasetCard) -> None:
        """Raise `OptionError` where a data set with this `DatasetCard` cannot be scored by this protocol."""
        if self.bit_depth not in (None, card.bit_depth):
            raise OptionError(
                f"protocol {self.name} is defined on {self.bit_depth}-bit frames, {card.name} holds "
                f"{card.bit_depth}-bit ones: its scores would look comparable to published ones and not be. "
                "Prepare the data from the original files, or choose another protocol "
                "(full_float takes any depth)")
        if self.linear and not card.linear:
            raise OptionError(f"protocol {self.name} is defined on linear raw data, {card.name} holds sRGB "
                              "frames; choose another protocol (dpdd16 for 16-bit sRGB frames)")
        if card.linear and not self.linear:
            raise OptionError(f"protocol {self.name} is defined on sRGB frames, {card.name} holds linear light, which "
                              "networks are not trained on; choose linear_float, or pixel4_linear for the Pixel 4 set")

    def prepare(self, sample: dict) -> dict:
        """Return the sample that the restorer is fed with and whose `gt`, where there is one, is scored against."""
        return map_images(sample, self.fed, VIEW_KEYS) if self.linear else sample

    def fed(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image in the light that is scored, in [0, 1], as the light that the restorer is fed with."""
        return linear_to_srgb(image) if self.linear else image

    def finish(self, restored: torch.Tensor, sample: dict) -> torch.Tensor:
        """Return the restorer's output (3, H, W) for a prepared sample as the image that is scored, in [0, 1]."""
        check_sizes(restored, sample)
        restored = restored.float().clamp(0, 1)
        return srgb_to_linear(restored) if self.linear else restored

    def do_nothing(self, sample: dict, prepared: dict) -> torch.Tensor:
        """Return the blurred center view as an answer: what a restorer has to beat. Scored like one."""
        if self.linear:
            check_sizes(sample["center"], sample)
            return sample["center"].float().clamp(0, 1)
        return self.finish(prepared["center"], prepared)

    def score(self, restored: torch.Tensor, gt: torch.Tensor) -> dict[str, float]:
        """Scores by metric name for a finished image and the prepared truth, both (3, H, W)."""
        return {name: metric(restored, gt) for name, metric in self.scorers.items()}

    def display(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image of this protocol in [0, 1] as it should look on a screen."""
        return image.clamp(0, 1)

    @property
    def ranking(self) -> str:
        """The metric that says which of two results is better."""
        return next(iter(self.scorers))

    def higher_is_better(self, metric: str) -> bool:
        """Return which way a metric of this protocol improves."""
        return self.scorers[metric].higher_is_better


def map_images(sample: dict, function: Callable[[torch.Tensor], torch.Tensor], keys: Iterable[str]) -> dict:
    """Return a copy of `sample` with `function` applied to those of `keys` that it has."""
    return {**sample, **{key: function(sample[key]) for key in keys if sample.get(key) is not None}}


def check_sizes(restored: torch.Tensor, sample: dict) -> None:
    """Raise `DataError` where there is a truth of another size than the restored frame."""
    if sample.get("gt") is not None and restored.shape[-2:] != sample["gt"].shape[-2:]:
        raise DataError(f"{sample.get('name', 'a sample')}: the truth is {tuple(sample['gt'].shape[-2:])} "
                        f"(rows, columns), the restored frame {tuple(restored.shape[-2:])}; prepare the "
                        "data so that views and truth cover the same pixels")
