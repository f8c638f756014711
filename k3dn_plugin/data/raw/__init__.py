"""Left and right view out of camera files.

`read_views(path)` is the way in. Each kind of file has one reader in a file of its own, which registers itself:

| file             | reads                                                                             |
|------------------|-----------------------------------------------------------------------------------|
| `canon.py`       | Canon Dual Pixel RAW (CR2, CR3): the sum of both photodiodes, and one side        |
| `dng.py`         | DNG with two samples a pixel or two raw frames                                    |
| `pixel_app.py`   | pairs of PGM files of Google's capture app (Pixel 3 and 4)                        |
| `quad_pixel.py`  | four views (lt, rt, lb, rb) of a quad-pixel sensor, summed to two                 |

`base.py` says what a reader is; `mosaics.py` splits a sum into its two sides; `libraw.py` is the only file that
knows rawpy; `structure.py` checks a file before its numbers are believed; `light.py` has the sRGB curve and the
area shrink; `sides.py` says what the shift between the views looks like; `results.py` writes the views.
"""
from k3dn_plugin.data.raw.base import Views, ViewSettings
from k3dn_plugin.data.raw.find import RAW_SUFFIXES, find_sources, is_camera_file, read_views

__all__ = ["RAW_SUFFIXES", "ViewSettings", "Views", "find_sources", "is_camera_file", "read_views"]
