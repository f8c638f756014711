"""What the shift between the views looks like: which side is left is stated nowhere, so the user is told."""
import numpy as np

from k3dn_plugin.data.disparity_check import MeasuredDisparity, measure_disparity
from k3dn_plugin.data.raw.base import Axis

CLEAR = 0.3  # px; a measured shift is good to about a third of a pixel


def measure_sides(left: np.ndarray, right: np.ndarray) -> MeasuredDisparity | None:
    """Measure the shift of the right view against the left; see `measure_disparity`.

    Tiles grow with the frame: shifts at full resolution are several times those of DPDD's frames.
    """
    side = min(left.shape[:2])
    return measure_disparity(left, right, tile=256 if side > 2000 else 128 if side >= 400 else 64)


def describe_sides(measured: MeasuredDisparity | None, axis: Axis = "x") -> str:
    """Return what the measured shift says about the sides, as one sentence.

    In this project's convention content nearer than focus lies further left in the right view (negative shift),
    content beyond it further right; along the rows, left stands for top and right for bottom.
    """
    if measured is None:
        return "sides: too little texture to measure a shift between the views, so nothing tells which is which"
    low, middle, high = measured.columns if axis == "x" else measured.rows
    seen = (f"right against left {low:+.1f} to {high:+.1f} px along the {'columns' if axis == 'x' else 'rows'} "
            f"(5 to 95 %, median {middle:+.1f}, {measured.tiles} tiles)")
    if max(abs(low), abs(high)) < CLEAR:
        return f"sides: {seen}: no shift that could be told from none, so nothing tells which side is which"
    if low < -CLEAR and high > CLEAR and abs(middle) < CLEAR:
        return (f"sides: {seen}: both signs. What lies nearer than the focus should shift by negative numbers, what "
                "lies beyond it by positive ones; if your picture shows the contrary, use --swap")
    near, far = ("nearer than", "beyond") if middle < 0 else ("beyond", "nearer than")
    return (f"sides: {seen}: mostly {'negative' if middle < 0 else 'positive'}, as of content {near} the focus. If "
            f"what you see out of focus lies {far} it, left and right are exchanged: use --swap")


def is_along_other_axis(measured: MeasuredDisparity | None, axis: Axis = "x") -> bool:
    """Return whether the views are clearly shifted along the other axis than they should be."""
    if measured is None:
        return False
    along, across = (measured.columns, measured.rows) if axis == "x" else (measured.rows, measured.columns)
    return max(map(abs, across)) > 2 * max(map(abs, along)) + 0.5
