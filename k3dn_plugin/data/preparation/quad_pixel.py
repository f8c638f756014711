"""Quad-pixel sets: four views a shot, summed to the pair that is shifted along the columns."""
from pathlib import Path
from typing import ClassVar

from k3dn_plugin.data.preparation.camera_files import CameraFiles
from k3dn_plugin.data.raw.quad_pixel import set_files
from k3dn_plugin.registry import PREPARERS


@PREPARERS.register_module()
class QuadPixelSets(CameraFiles):
    """Left is lt + lb, right is rt + rb, the center all four, each halved or quartered."""

    name = "quad_pixel"
    title = "quad-pixel sets (lt, rt, lb, rb as PNG or TIFF, 8 or 16 bits)"
    tree = ("  SOURCE/[.../]NAME/lt.png, rt.png, lb.png, rb.png    four views of one shot\n"
            "  or SOURCE/[.../]NAME_lt.png, NAME_rt.png, NAME_lb.png, NAME_rb.png")
    readers = ("quad_pixel",)
    facts: ClassVar[dict] = {
        "source": "your own quad-pixel files", "licence": "yours", "linear": False, "disparity_axis": "x",
        "orientation": "as the files are", "summed": "lt + lb and rt + rb, as the files' numbers are"}

    def view_files(self, source: Path) -> dict[str, Path]:
        """Return the file that each view is recorded with: the upper one of its two."""
        files = set_files(source)
        return {"left": files["lt"], "right": files["rt"], "center": files["lt"]}
