"""Camera files that are no files: pipes and devices are told, and never waited for."""
import os

import pytest

from k3dn_plugin.data.raw import read_views
from k3dn_plugin.data.raw.pixel_app import read_pgm
from k3dn_plugin.errors import DataError


@pytest.mark.parametrize("names", [("a.CR2",), ("a.CR3",), ("a.DNG",), ("a_left.pgm", "a_right.pgm"), ("a.xyz",),
                                   ("lt.png", "rt.png", "lb.png", "rb.png")])
def test_a_pipe_is_told(tmp_path, names):
    for name in names:
        os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{names[0]}.*pipe"):
        read_views(tmp_path / names[0])


@pytest.mark.parametrize("head", [b"P5\n" + b"9" * 4000 + b" 4\n65535\n", b"P5\n8 " + b"9" * 30 + b"\n65535\n"])
def test_numbers_without_end_in_a_header_are_no_header(tmp_path, head):
    (tmp_path / "a_left.pgm").write_bytes(head)
    with pytest.raises(DataError) as caught:
        read_pgm(tmp_path / "a_left.pgm")
    assert len(str(caught.value)) < 400
