"""Results as files: every number as rounded from the whole frame at once, without a copy of it in float64."""
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from k3dn_plugin.data.image_metadata import ImageMetadata
from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.inference.arrays import ArrayForm
from k3dn_plugin.inference.files import Pair, PairFiles, notes_on, read_pair, write_restored


class LargestFloat64(TorchFunctionMode):
    """Counts the numbers of the largest float64 tensor that is made."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            self.count = max(self.count, found.numel())
        return found


@pytest.mark.parametrize("bits, full_scale", [(8, None), (16, None), (16, 4095)])
@pytest.mark.parametrize("colour", [True, False])
def test_results_are_rounded_as_the_whole_frame_would_be(bits, full_scale, colour, tmp_path):
    image = torch.rand(1, 3, 200, 70, generator=torch.Generator().manual_seed(bits)) * 1.2 - 0.1
    scale = full_scale or 2 ** bits - 1
    expected = (image[0].double().clamp(0, 1) * scale).round().permute(1, 2, 0).numpy()
    expected = expected if colour else expected.mean(-1, keepdims=True).round()
    kept = image.clone()
    with LargestFloat64() as largest:
        write_restored(tmp_path / "a.png", image.rot90(2, (-2, -1)), bits=bits, colour=colour, full_scale=full_scale)
    assert 0 < largest.count < image.numel() / 2 and torch.equal(image, kept)
    assert np.array_equal(read_image(tmp_path / "a.png", bits=bits, gray=True), np.rot90(expected, 2))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", ">f2"])
@pytest.mark.parametrize("channels", [3, 1, 0])
def test_arrays_are_too(dtype, channels):
    image = torch.rand(1, 3, 200, 70, generator=torch.Generator().manual_seed(channels)) * 1.2 - 0.1
    expected = image[0].double().clamp(0, 1).permute(1, 2, 0).numpy()
    expected = expected if channels == 3 else expected.mean(-1, keepdims=channels == 1)
    expected = np.round(expected * np.iinfo(dtype).max) if "u" in dtype else expected
    with LargestFloat64() as largest:
        found = ArrayForm(np.dtype(dtype), channels).array(image)
    assert 0 < largest.count < image.numel() / 2
    assert found.dtype == dtype and np.array_equal(found, expected.astype(dtype))


@pytest.mark.parametrize("space, colour, said", [(b"GRAY", True, True), (b"CMYK", True, True), (b"RGB ", True, False),
                                                 (b"GRAY", False, False)])
def test_a_profile_that_cannot_go_with_the_result_is_said(space, colour, said):
    lq = torch.rand(1, 6, 8, 9, generator=torch.Generator().manual_seed(0))
    pair = Pair(lq, None, 8, colour, metadata=ImageMetadata(bytes(16) + space + bytes(200)))
    found = notes_on(pair, "a.png", None)
    assert [f"a.png: the color profile is for {space.decode()} pixels" in note for note in found] == [True] * said


@pytest.mark.parametrize("left, right, said", [
    ("a_L", "a_R", None), ("left", "right", None), ("one", "two", None), ("shot_a", "shot_b", None),
    ("a_R", "a_L", "the other way round"), ("right", "left", "the other way round"), ("a_L", "b_R", "of two, a and b")])
def test_names_that_speak_against_a_pair_are_said(left, right, said, tmp_path):
    files = PairFiles(tmp_path / f"{left}.png", tmp_path / f"{right}.png", None, tmp_path / "out.png")
    for path in (files.left, files.right):
        write_image(path, np.zeros((8, 9, 3), np.uint8))
    notes = read_pair(files).notes
    assert [said in note for note in notes] == [True] if said else not notes
