"""NumPy's .npy files that users bring: one array of numbers each, read without running anything in them."""
import io
import os

import numpy as np

from k3dn_plugin.errors import DataError
from k3dn_plugin.files import MOST_BYTES, read_file


def read_array(path: str | os.PathLike[str], what: str, *, most: int = MOST_BYTES) -> np.ndarray:
    """Return the array in a .npy file.

    Args:
        path: of the file.
        what: the array is, for messages: "a blur map".
        most: bytes that the file may have.

    Raises:
        DataError: the file is missing, damaged or too large, is an archive, or holds something else than real numbers.
    """
    data = read_file(path, most=most)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy raises whatever its parser of the header runs into
        raise DataError(f"{path}: not an array that can be read as {what} ({str(error)[:150]}); copy it "
                        "again") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: expected one array, {what} (.npy), found an archive of arrays (.npz)")
    if array.dtype.kind not in "fiub" or not array.size:
        raise DataError(f"{path}: expected numbers, {what}, found {array.shape} of {array.dtype}")
    return array
