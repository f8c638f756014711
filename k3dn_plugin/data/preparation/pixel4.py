"""The Pixel 4 pairs of Xin et al. (ICCV 2021): raw green, linear light, with truth and defocus maps."""
import functools
from pathlib import Path

import numpy as np

from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split, check_frames, register_preparer
from k3dn_plugin.data.preparation.files import list_view, match_views
from k3dn_plugin.data.preparation.single_images import how_many
from k3dn_plugin.errors import DataError

FRAME, TRUTH = (1512, 2016), (1008, 1344)
CROP = np.s_[252:1260, 336:1680]       # the part of a frame that has a truth
BLACK, RANGE = 1024, 16383
BOX = 101                              # side of the box that smooths the white sheets


@register_preparer
class Pixel4(Preparer):
    """17 scenes; the stored right view has the vignetting of the left one."""

    name = "pixel4"
    title = "Xin et al.'s Pixel 4 pairs (DP_data_pixel_4): 14-bit raw green, linear, test only"
    tree = ("  SOURCE/NNN_left.png, NNN_right.png                     raw views, 1512 x 2016, 16-bit\n"
            "  SOURCE/gt_all_in_focus_im/NNN_gt.png                   truth, 1008 x 1344, 16-bit\n"
            "  SOURCE/gt_defocus_map/NNN_gt.png                       (may be missing)\n"
            "  SOURCE/calibration/white_sheet_{left,right}.png        for the vignetting\n"
            "The repository is cmu-ci-lab/dual_pixel_defocus_estimation_deblurring")
    bits = 16
    facts = {
        "source": "Xin et al., Defocus Map Estimation and Deblurring from a Single Dual-Pixel Image, ICCV 2021",
        "licence": "none stated: do not redistribute", "linear": True,
        # The right view is stored as it is after the correction, without black level.
        "black_level": {"left": BLACK, "right": 0, "sharp": 0},
        "full_scale": {"left": RANGE, "right": RANGE, "sharp": 65535},
        "crop": "rows 252-1259, columns 336-1679 of 1512 x 2016", "aligned_with": "left", "border_ring": 1,
        "usual_shift": "positive",  # all scenes are focused on one side
        "vignetting": "right view times box101(white left) / box101(white right), black level subtracted",
        "defocus_unit": "arbitrary scale and offset"}

    def find(self, source: Path) -> list[Split]:
        root = next((r for r in (source, source / "DP_data_pixel_4") if any(r.glob("*_left.png"))
                     or any(r.glob("*_right.png"))), None)
        if root is None:
            raise self.missing(source)
        files = {view: _views(root, view) for view in ("left", "right")}
        files["sharp"] = list_view(root / "gt_all_in_focus_im", "sharp")
        maps = root / "gt_defocus_map"
        if maps.is_dir():
            files["defocus"] = list_view(maps, "sharp")
        names = match_views(files)
        self._sheets = {view: root / "calibration" / f"white_sheet_{view}.png" for view in ("left", "right")}
        for path in self._sheets.values():
            if not path.is_file():
                raise DataError(f"there is no {path}: the vignetting of the right view is corrected by the two "
                                "white sheets. Copy the folder `calibration` as well")
        scenes = [SceneFiles(name, {view: files[view][name] for view in files}) for name in names]
        return [Split("test", scenes, facts={"bit_depth": 14},
                      notes=["the truth is aligned with the left view; its outermost pixels are zero and do not "
                             "count (protocol pixel4_linear)", *how_many(len(names), 17, "scenes")])]

    def load(self, scene, bits, keep_portrait=False):
        raw = {view: read_image(scene.files[view], bits=bits, gray=True) for view in ("left", "right", "sharp")}
        for view, wanted in (("left", FRAME), ("right", FRAME), ("sharp", TRUTH)):
            if raw[view].shape != (*wanted, 1):
                raise DataError(f"{scene.files[view]}: expected {wanted[0]} x {wanted[1]} pixels (rows x columns) "
                                f"of one channel, found {raw[view].shape}")
        check_frames(scene, {view: raw[view] for view in ("left", "right")})
        right = np.maximum(raw["right"][CROP].astype(np.float32) - BLACK, 0) * self._ratio[..., None]
        frames = {"left": raw["left"][CROP], "right": right, "sharp": raw["sharp"]}
        if "defocus" in scene.files:
            defocus = read_image(scene.files["defocus"], gray=True)
            if defocus.shape[:2] != TRUTH:
                raise DataError(f"{scene.files['defocus']}: expected {TRUTH[0]} x {TRUTH[1]} pixels, found "
                                f"{defocus.shape[0]} x {defocus.shape[1]}")
            frames["defocus"] = defocus[..., 0].astype(np.float32)
        return frames

    @functools.cached_property
    def _ratio(self):
        """Left over right vignetting, (1008, 1344) float32."""
        import cv2
        smooth = []
        for path in self._sheets.values():
            sheet = read_image(path, bits=16, gray=True)[..., 0].astype(np.float64) - BLACK
            if sheet.shape != FRAME:
                raise DataError(f"{path}: expected {FRAME[0]} x {FRAME[1]} pixels, found {sheet.shape}")
            smooth.append(cv2.blur(sheet, (BOX, BOX))[CROP])
        return (smooth[0] / smooth[1]).astype(np.float32)


def _views(root, view):
    found = {path.name.removesuffix(f"_{view}.png"): path for path in sorted(root.glob(f"*_{view}.png"))}
    if not found:
        raise DataError(f"{root}: expected the {view} views (NNN_{view}.png), found none")
    return found
