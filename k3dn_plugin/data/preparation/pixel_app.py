"""Pairs of Google's dual-pixel capture app: PGM files of the green channel in linear light."""
from pathlib import Path
from typing import ClassVar

from k3dn_plugin.data.preparation.camera_files import CameraFiles
from k3dn_plugin.data.raw.base import ViewSettings
from k3dn_plugin.data.raw.pixel_app import pair_files
from k3dn_plugin.registry import PREPARERS


@PREPARERS.register_module()
class PixelAppPairs(CameraFiles):
    """Black level taken off, rows doubled; the center is the mean of the views."""

    name = "pixel_app"
    title = "pairs of Google's dual-pixel capture app (Pixel 3 and 4: 16-bit PGM, 2016 x 756)"
    tree = ("  SOURCE/[.../]NAME_left.pgm     left view, each row standing for two\n"
            "  SOURCE/[.../]NAME_right.pgm    right view")
    size = (1512, 2016)
    readers = ("pixel_app",)
    settings = ViewSettings(light="linear")
    facts: ClassVar[dict] = {
        "source": "Google's capture app (google-research/dual_pixels)", "licence": "yours", "linear": True,
        "disparity_axis": "x", "orientation": "landscape; files of a turned phone turned 90 degrees counter-clockwise",
        "center": "mean of left and right", "vignetting": "not corrected: the app writes no white sheets"}

    def view_files(self, source: Path) -> dict[str, Path]:
        """Return the file that each view is recorded with."""
        left, right = pair_files(source)
        return {"left": left, "right": right, "center": left}
