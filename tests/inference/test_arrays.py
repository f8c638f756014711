"""Pictures as NumPy arrays: in and out in the caller's type, and one clear error for each wrong array."""
import numpy as np
import pytest
import torch

from k3dn_plugin.errors import DataError, SizeError
from k3dn_plugin.inference.arrays import pair_from_arrays

DRAW = np.random.default_rng(0)


def views(dtype, shape=(7, 9, 3), count=2):
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    return [(DRAW.random(shape) * top).astype(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("shape", [(7, 9, 3), (7, 9), (7, 9, 1), (1, 1, 3)])
def test_round_trip(dtype, shape):
    left, right, center = views(dtype, shape, 3)
    lq, center_view, form = pair_from_arrays(left, right, center)
    assert lq.shape == (1, 6, *shape[:2]) and lq.dtype == center_view.dtype == torch.float32
    assert 0 <= lq.min() and lq.max() <= 1
    for image, wanted in ((lq[:, :3], left), (lq[:, 3:], right), (center_view, center)):
        again = form.array(image)
        assert again.dtype == wanted.dtype and again.shape == wanted.shape and again.flags.c_contiguous
        np.testing.assert_allclose(again.astype("f8"), wanted.astype("f8"), rtol=0, atol=1e-7 if "f" in dtype else 0)


def test_any_memory_layout():
    left, right = views("u1", (12, 20, 3))
    odd = left[::2, ::-1].transpose(1, 0, 2)
    assert torch.equal(pair_from_arrays(odd, odd)[0], pair_from_arrays(odd.copy(), odd.copy())[0])
    left.flags.writeable = False
    pair_from_arrays(left, right)


def test_results_are_pictures():
    left, right = views("u1")
    form = pair_from_arrays(left, right)[2]
    beyond = torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1).expand(1, 3, 7, 9)
    assert form.array(beyond)[0, 0].tolist() == [0, 128, 255]
    form = pair_from_arrays(*views("f4"))[2]
    assert form.array(beyond)[0, 0].tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("change, error, words", [
    (lambda v: v[:, :-1], DataError, r"differ in shape: left has \(7, 9, 3\), right has \(7, 8, 3\)"),
    (lambda v: (v / 255).astype("f4"), DataError, "differ in type: left has uint8, right has float32"),
    (lambda v: v[..., 0], DataError, "differ in shape"),
    (lambda v: np.dstack([v, v[..., :1]]), SizeError, r"\(7, 9, 4\).*alpha"),
    (lambda v: v.transpose(2, 0, 1), SizeError, r"right: expected \(H, W, 3\).*\(3, 7, 9\)"),
    (lambda v: v[None], SizeError, "one picture a call"),
    (lambda v: v[:0], SizeError, "without a pixel"),
    (lambda v: v.astype(int), DataError, "found int64"),
    (lambda v: v > 5, DataError, "found bool"),
    (lambda v: v.astype(complex), DataError, "found complex128"),
    (lambda v: v.astype(object), DataError, "found object"),
    (lambda v: torch.from_numpy(v), DataError, "torch tensor.*restore_tensor"),
    (lambda v: "left.png", DataError, r"found <U8 \(str\)"),
    (lambda v: None, DataError, "NoneType"),
    (lambda v: [[1, 2], [3]], DataError, "right: expected"),
])
def test_wrong_arrays(change, error, words):
    left, right = views("u1")
    with pytest.raises(error, match=words):
        pair_from_arrays(left, change(right))
    if change(right) is not None:  # a center view may be left out
        with pytest.raises((DataError, SizeError)):
            pair_from_arrays(left, right, change(left))


@pytest.mark.parametrize("value, words", [(np.nan, "1 of its 189 values are not finite"), (-np.inf, "not finite"),
                                          (255.0, r"expected floats in \[0, 1\]; found .* to 255"), (-3, "found -3")])
@pytest.mark.parametrize("view", ["left", "right", "center"])
def test_wrong_floats(value, words, view):
    arrays = dict(zip(("left", "right", "center"), views("f4", count=3)))
    arrays[view][3, 4, 1] = value
    with pytest.raises(DataError, match=f"{view}: .*{words}"):
        pair_from_arrays(**arrays)
