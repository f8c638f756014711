import os
import unicodedata

import pytest

from k3dn_plugin.data.listing import files_with_ending, list_files, named_view, scenes_by_name, stem, view_ending
from k3dn_plugin.errors import DataError


def touch(folder, *names):
    folder.mkdir(exist_ok=True, parents=True)
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


def test_hidden_files_folders_and_other_kinds_are_passed_over(tmp_path):
    touch(tmp_path, "b.PNG", "a.tif", "._a.tif", ".hidden.png", "notes.txt")
    touch(tmp_path / "c.png", "inside.png")
    (tmp_path / "round").symlink_to(tmp_path)
    assert [p.name for p in list_files(tmp_path)] == ["a.tif", "b.PNG"]
    assert [p.name for p in list_files(tmp_path, below=True)] == ["a.tif", "b.PNG", "inside.png"]
    for place in (tmp_path / "nothing", tmp_path / "a.tif"):
        with pytest.raises(DataError, match="cannot be read"):
            list_files(place)


def test_names_are_the_same_however_they_are_written(tmp_path):
    assert stem("x/" + unicodedata.normalize("NFD", "Überblick.png")) == unicodedata.normalize("NFC", "Überblick")
    assert stem(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9"
    stem(os.fsdecode(b"caf\xe9.png")).encode()


@pytest.mark.parametrize("name, expected", [
    ("a_L", ("a", "left")), ("a-right", ("a", "right")), ("a_C", ("a", "center")), ("a_B", ("a", "center")),
    ("a_gt", ("a", "sharp")), ("a_x", ("a_x", None)), ("aL", ("aL", None)), ("_l", ("_l", None))])
def test_view_endings(name, expected):
    assert view_ending(name) == expected


def test_a_name_may_be_the_views_own():
    names = ("left", "Right", "centre", "a_L", "l", "b", "x", "leftover")
    assert [named_view(name) for name in names] == ["left", "right", "center", "left", None, None, None, None]


def test_a_letter_at_the_end_of_a_few_names_is_part_of_them(tmp_path):
    names = [f"shot_{letter}.png" for letter in "abcdlr"]
    for view in ("left", "right", "center"):
        assert sorted(scenes_by_name(touch(tmp_path / view, *names), view)) == [name[:-4] for name in names]
    assert sorted(scenes_by_name(touch(tmp_path / "l", "1_L.png", "2_l.tif", "3.png"), "left")) == ["1", "2", "3"]


def test_what_names_contradict(tmp_path):
    with pytest.raises(DataError, match="by its name a right image, in the folder of the left images .2 of 2 files"):
        scenes_by_name(touch(tmp_path / "a", "1_R.png", "2_R.png"), "left")
    with pytest.raises(DataError, match="1_L.png and 1_left.png are both the left image of scene 1"):
        scenes_by_name(touch(tmp_path / "b", "1_L.png", "1_left.png"), "left")
    with pytest.raises(DataError, match="1_L.png and 1_L.tif are both the L image of scene 1"):
        touch(tmp_path / "c", "1_L.png", "1_L.tif")
        files_with_ending(tmp_path / "c", "_L")
