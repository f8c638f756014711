import os
import struct

import numpy as np
import pytest

from k3dn_plugin.data.depth_files import read_depth, read_pfm
from k3dn_plugin.errors import DataError, OptionError

NUMBERS = np.ones((10, 12), "<f4").tobytes()


@pytest.mark.parametrize("data", [
    b"", b"Pf", b"PF\n12 10\n-1.0\n" + NUMBERS * 3, b"Pf\n12 10\n-1.0\n" + NUMBERS[:-5],
    b"Pf\n-12 -10\n-1.0\n" + NUMBERS,
    b"Pf\n0 0\n-1.0\n" + NUMBERS, b"Pf\n12 10\n0\n" + NUMBERS, b"Pf\n12 10\nnan\n" + NUMBERS,
    b"Pf\n12 10\n-inf\n" + NUMBERS,
    b"Pf\n99999999 99999999\n-1.0\n" + NUMBERS, b"Pf\n" + b"9" * 4500 + b" 10\n-1.0\n" + NUMBERS, b"Pf 12 10 -1.0"])
def test_malformed_pfm_files_are_one_error(tmp_path, data):
    (tmp_path / "a.pfm").write_bytes(data)
    with pytest.raises(DataError, match="a.pfm"):
        read_pfm(tmp_path / "a.pfm")


def test_malformed_arrays_are_one_error(tmp_path):
    path = tmp_path / "a.npy"
    claim = repr({"descr": "<f4", "fortran_order": False, "shape": (2**40, 2**20)}).encode().ljust(117) + b"\n"
    for content in (b"", b"text", b"\x93NUMPY\1\0" + struct.pack("<H", 118) + claim, np.array([{}], object),
                    np.zeros((2, 3, 4)), np.array([["a"]]), np.zeros((0, 5)), np.zeros((4, 4), bool),
                    np.zeros((4, 4), complex)):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content)
        with pytest.raises(DataError, match="a.npy"):
            read_depth(path)
    with open(path, "wb") as file:
        np.savez(file, a=np.zeros((3, 3)))
    with pytest.raises(DataError, match="a.npy: expected one array"):
        read_depth(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="a pipe"):
        read_depth(path)


def test_a_scale_has_to_be_above_0(tmp_path):
    np.save(tmp_path / "a.npy", np.full((3, 4), 1e300))
    assert np.isnan(read_depth(tmp_path / "a.npy")).all()
    for scale in (0, -5, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="expected a number above 0"):
            read_depth(tmp_path / "a.npy", scale=scale)
