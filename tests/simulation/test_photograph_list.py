"""The list of photographs, and the command that cuts crops out of them."""
import cv2
import numpy as np
import pytest

from k3dn_plugin.commands import photographs as command
from k3dn_plugin.data.images import read_image
from k3dn_plugin.errors import DataError
from k3dn_plugin.simulation.photograph_list import (
    SIDE,
    ListedCrop,
    ListedPhotograph,
    cut_crops,
    find_photographs,
    fingerprint,
    listed_crops,
    listed_photographs,
)


def picture(seed, size=(600, 700)):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 10, 3), dtype=np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def source(tmp_path):
    """Two of three photographs, one in its folder and one flattened, and the list of all three."""
    listed = {name: ListedPhotograph(name, "https://example.org", path, "Somebody", "CC0-1.0", "")
              for name, path in (("a.png", "pictures/a.png"), ("deep__b.png", "deep/b.png"), ("c.png", "c.png"))}
    folder = tmp_path / "source"
    (folder / "x" / "pictures").mkdir(parents=True)
    cv2.imwrite(str(folder / "x" / "pictures" / "a.png"), picture(0)[..., ::-1])
    cv2.imwrite(str(folder / "deep__b.png"), picture(1)[..., ::-1])
    crops = []
    for name, seed in (("a.png", 0), ("deep__b.png", 1), ("c.png", 2)):
        small = cv2.resize(picture(seed), (630, 540), interpolation=cv2.INTER_AREA)
        crops += [ListedCrop(f"{name[0]}_{left}", name, 540, 630, 20, left,
                             fingerprint(np.ascontiguousarray(small[20:20 + SIDE, left:left + SIDE])))
                  for left in (0, 64)]
    return folder, listed, crops


def test_the_list_is_whole():
    listed, crops = listed_photographs(), listed_crops()
    assert len(listed) == 50 and len(crops) == 541 == len({crop.crop for crop in crops})
    assert {crop.photograph for crop in crops} == set(listed)
    for crop in crops:
        assert 0 <= crop.top <= crop.rows - SIDE and 0 <= crop.left <= crop.columns - SIDE
        assert len(bytes.fromhex(crop.fingerprint)) == 16
    for entry in listed.values():
        assert entry.source.startswith("https://") and entry.author and entry.licence
        assert len(entry.sha256) in (0, 64)


def test_crops_are_the_listed_places_and_what_is_missing_is_named(source, tmp_path, capsys):
    folder, listed, crops = source
    assert command.cut(str(folder), str(tmp_path / "out"), listed, crops) == 1
    printed = capsys.readouterr()
    assert "4 of 6 crops, from 2 of 3 photographs" in printed.out
    assert "missing: c.png of https://example.org: not found" in printed.err
    small = cv2.resize(picture(1), (630, 540), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "d_64.png"), small[20:20 + SIDE, 64:64 + SIDE])


def test_what_is_there_is_not_cut_again(source, tmp_path):
    folder, listed, crops = source
    out = tmp_path / "out"
    cut_crops(folder / "deep__b.png", listed["deep__b.png"], crops[2:3], out)
    before = (out / "d_0.png").stat().st_mtime_ns
    assert command.cut(str(folder), str(out), {k: listed[k] for k in ("a.png", "deep__b.png")}, crops) == 0
    assert (out / "d_0.png").stat().st_mtime_ns == before and len(list(out.iterdir())) == 4


def test_another_picture_of_that_name_is_refused_and_does_not_stop_the_others(source, tmp_path, capsys):
    folder, listed, crops = source
    cv2.imwrite(str(folder / "x" / "pictures" / "a.png"), picture(7)[..., ::-1])
    assert command.cut(str(folder), str(tmp_path / "out"), listed, crops) == 1
    printed = capsys.readouterr()
    assert "2 of 6 crops" in printed.out and "found another picture" in printed.err
    with pytest.raises(DataError, match="another version"):
        cv2.imwrite(str(folder / "c.png"), picture(2, (500, 700)))
        cut_crops(folder / "c.png", listed["c.png"], crops[4:], tmp_path / "out")
    with pytest.raises(DataError, match="SHA-256 0123"):
        cut_crops(folder / "c.png", listed["c.png"]._replace(sha256="0123" * 16), crops[4:], tmp_path / "out")


def test_a_folder_without_any_is_refused(source, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="such as pictures/a.png of https://example.org, found none"):
        find_photographs(tmp_path / "empty", source[1])
    with pytest.raises(DataError, match="no such folder"):
        find_photographs(tmp_path / "none", source[1])
