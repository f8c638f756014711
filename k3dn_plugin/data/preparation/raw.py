"""Camera raw files that hold both views: Canon Dual Pixel RAW, and DNG with two samples a pixel."""
from typing import ClassVar

from k3dn_plugin.data.preparation.camera_files import CameraFiles
from k3dn_plugin.registry import PREPARERS


@PREPARERS.register_module()
class Raw(CameraFiles):
    """Full frames in sRGB; `k3dn views --scale 4` and the layout `pairs` make DPDD's size."""

    name = "raw"
    title = "dual-pixel raw files of your own (.CR2, .CR3, .DNG), developed at full size"
    tree = "  SOURCE/[train|val|test/][.../]NAME.CR2 (.CR3, .DNG)    a shot taken with Dual Pixel RAW on"
    readers = ("canon", "dng")
    facts: ClassVar[dict] = {
        "source": "your own raw files", "linear": False, "disparity_axis": "x",
        "orientation": "the sensor's, whichever way the camera was held",
        "development": "LibRaw: the camera's white balance, AHD, sRGB; left is the second raw frame"}
