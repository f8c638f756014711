"""The Pixel 4 pairs of Xin et al. (ICCV 2021): raw green, linear light, with truth and defocus maps."""
import functools
from pathlib import Path

import cv2
import numpy as np

from k3dn_plugin.data.images import read_image
from k3dn_plugin.data.listing import files_with_ending
from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split, check_frames
from k3dn_plugin.data.preparation.files import list_view, match_views
from k3dn_plugin.data.preparation.single_images import which
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import file_hash
from k3dn_plugin.registry import PREPARERS

# Views are 1512 x 2016, of which the central 1008 x 1344 have a truth. Reduced copies keep these proportions,
# and are told from the published size by `size`.
BLACK, RANGE = 1024, 16383
BOX = 101                              # side of the box that smooths the white sheets


@PREPARERS.register_module()
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
    size = (1008, 1344)
    facts = {
        "source": "Xin et al., Defocus Map Estimation and Deblurring from a Single Dual-Pixel Image, ICCV 2021",
        "licence": "none stated: do not redistribute", "linear": True,
        # The right view is stored as it is after the correction, without black level.
        "black_level": {"left": BLACK, "right": 0, "sharp": 0},
        "full_scale": {"left": RANGE, "right": RANGE, "sharp": 65535},
        "crop": "the central two thirds: rows 252-1259, columns 336-1679 of 1512 x 2016", "disparity_axis": "x",
        "orientation": "landscape, as published", "aligned_with": "left", "border_ring": 1, "protocol": "pixel4_linear",
        "usual_shift": "positive",  # all scenes are focused on one side
        "vignetting": "right view times box101(white left) / box101(white right), black level subtracted",
        "defocus_unit": "arbitrary scale and offset"}

    def find(self, source: Path) -> list[Split]:
        """Return one split, the test."""
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
        sheets = {f"white_sheet_{view}_sha256": file_hash(path) for view, path in self._sheets.items()}
        return [Split("test", scenes, facts={"bit_depth": 14, "official_scenes": 17, **sheets},
                      notes=["the truth is aligned with the left view; its outermost pixels are zero and do not "
                             "count (protocol pixel4_linear)",
                             *which(names, [f"{number:03d}" for number in range(1, 18)])])]

    def load(self, scene: SceneFiles, bits: int, keep_portrait: bool = False) -> dict[str, np.ndarray]:
        """Read the frames, the right view with the vignetting of the left one."""
        if bits != 16:
            raise DataError(f"--bits {bits}: raw frames with black level {BLACK} need 16 bits; leave --bits out and "
                            "copy the original files")
        raw = {view: _read(scene.files[view]) for view in ("left", "right", "sharp")}
        ratio, crop = self._vignetting
        frame, truth = self._frame, ratio.shape
        for view, wanted in (("left", frame), ("right", frame), ("sharp", truth)):
            if raw[view].shape != (*wanted, 1):
                raise DataError(f"{scene.files[view]}: expected {wanted[0]} x {wanted[1]} pixels (rows x columns) "
                                f"of one channel beside white sheets of {frame[0]} x {frame[1]}, found "
                                f"{' x '.join(map(str, raw[view].shape[:2]))} of {raw[view].shape[2]}")
        check_frames(scene, {view: raw[view] for view in ("left", "right")})
        right = np.maximum(raw["right"][crop].astype(np.float32) - BLACK, 0) * ratio[..., None]
        frames = {"left": raw["left"][crop], "right": right, "sharp": raw["sharp"]}
        if "defocus" in scene.files:
            defocus = read_image(scene.files["defocus"], gray=True)
            if defocus.shape[:2] != truth:
                raise DataError(f"{scene.files['defocus']}: expected {truth[0]} x {truth[1]} pixels, found "
                                f"{defocus.shape[0]} x {defocus.shape[1]}")
            frames["defocus"] = defocus[..., 0].astype(np.float32)
        return frames

    @functools.cached_property
    def _frame(self) -> tuple[int, int]:
        """Return (rows, columns) of the raw frames: those of the white sheets."""
        left, right = (_read(path).shape for path in self._sheets.values())
        if left != right or left[2] != 1 or left[0] % 6 or left[1] % 6:
            raise DataError(f"{self._sheets['left']} is {left}, {self._sheets['right']} {right} (rows, columns, "
                            "channels); expected two of 1512 x 2016 and one channel. Copy the original files")
        return left[:2]

    @functools.cached_property
    def _vignetting(self) -> tuple[np.ndarray, tuple[slice, slice]]:
        """Return left over right vignetting over the central two thirds (1008, 1344) float32, and where these are."""
        rows, columns = self._frame
        crop = np.s_[rows // 6:rows - rows // 6, columns // 6:columns - columns // 6]
        smooth = []
        for path in self._sheets.values():
            sheet = _read(path)[..., 0].astype(np.float64) - BLACK
            smooth.append(cv2.blur(sheet, (BOX, BOX), borderType=cv2.BORDER_REFLECT)[crop])
            if smooth[-1].min() <= 0:
                raise DataError(f"{path}: darker than the black level {BLACK} after smoothing, so it is no white "
                                "sheet. Copy the original file")
        return (smooth[0] / smooth[1]).astype(np.float32), crop


def _read(path: Path) -> np.ndarray:
    """Return a raw file as (H, W, channels) uint16."""
    image = read_image(path, gray=True)
    if image.dtype != np.uint16:
        raise DataError(f"{path}: expected 16 bits a channel, the file has 8, into which raw values above the black "
                        f"level {BLACK} do not fit. Copy the original file")
    return image


def _views(root: Path, view: str) -> dict[str, Path]:
    """Return the raw files of a view by scene."""
    found = files_with_ending(root, f"_{view}")
    if not found:
        raise DataError(f"{root}: expected the {view} views (NNN_{view}.png), found none")
    return found
