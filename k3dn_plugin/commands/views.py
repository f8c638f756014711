"""Take left and right view out of camera files: Canon Dual Pixel RAW, DNG, Google's capture app, quad pixel.

    k3dn views photo.CR2 -o views                    # views/photo_L.png, photo_R.png, photo_C.png; 16 bits, sRGB
    k3dn views *.CR3 -o views --scale 4              # a quarter of the size, as DPDD's frames
    k3dn views scene_left.pgm -o views --light linear
    k3dn views my_quad_set/ -o views --axis y        # the pair that is shifted along the rows

Both views are developed alike. Which of the two is the left one no camera file says: the shift that was measured is
printed, and --swap exchanges them.
"""
import argparse
import sys
from pathlib import Path

from k3dn_plugin.commands._numbers import whole

GROUP = "photographs"


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit status; files that cannot be read do not stop the others."""
    # Imported here, because OpenCV takes time and --help should not.
    from k3dn_plugin.data.raw import ViewSettings, find_sources
    from k3dn_plugin.data.raw.results import report, shot_names, write_views
    from k3dn_plugin.errors import K3DNError

    settings = ViewSettings(light=arguments.light, swap=arguments.swap, scale=arguments.scale, axis=arguments.axis,
                            black_level=arguments.black_level, whole=arguments.whole)
    shots, faults, said = find_sources(arguments.files)
    names = shot_names(shots)
    status = 0
    for line in said:
        print(f"note: {line}", file=sys.stderr, flush=True)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr, flush=True)
        status = fault.exit_code
    for (reader, source), name in zip(shots, names, strict=True):
        try:
            views = reader.read(source, settings)
            files = write_views(views, Path(arguments.out), name, suffix=f".{arguments.format}", mask=arguments.mask)
        except K3DNError as error:
            if len(shots) + len(faults) == 1:
                raise
            print(f"error: {error}", file=sys.stderr, flush=True)
            status = error.exit_code
            continue
        print("\n".join(report(views, source, files)), flush=True)
    return status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE",
                        help="raw file (.CR2, .CR3, .DNG), one file of a .pgm pair or of a quad-pixel set, or a folder")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder for the views")
    parser.add_argument("--light", choices=("srgb", "linear"), default="srgb",
                        help="encoded as restorers expect it (srgb, the default), or linear")
    parser.add_argument("--format", choices=("png", "tif"), default="png", help="16-bit PNG (default) or TIFF")
    parser.add_argument("--scale", type=whole(1), default=1, metavar="N",
                        help="shrink by N, averaging areas in linear light; 4 makes 1680 x 1120 of the 5D Mark IV")
    parser.add_argument("--swap", action="store_true", help="exchange left and right")
    parser.add_argument("--axis", choices=("x", "y"), default="x",
                        help="of quad-pixel sets: views shifted along the columns (x) or the rows (y)")
    parser.add_argument("--mask", action="store_true", help="also write NAME_M.png, black where the sum was clipped")
    parser.add_argument("--black-level", type=whole(), metavar="N", help="in place of the file's own")
    parser.add_argument("--whole", action="store_true",
                        help="keep the sensor's border, which the camera's own pictures leave out")
