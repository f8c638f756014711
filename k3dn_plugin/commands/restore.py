"""Restore your own dual-pixel pair:

    k3dn restore --left L.png --right R.png -o sharp.png
    k3dn restore photo.CR2 -o sharp.png --preview --html
    k3dn restore photos/ -o sharp --weights experiments/k3dn_demo/models/best.safetensors

Camera files hold both views (docs/views.md): raw files, .pgm pairs, quad-pixel sets, and folders of them.
Color profile, orientation and EXIF of the center (else left) view go into the result. 16-bit files give a 16-bit
result. --left and --right may be folders (then -o too); files belong together if
their names are equal up to an ending such as _L and _R.
"""
import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from k3dn_plugin.commands._inference import add_inference_arguments, load_as_asked
from k3dn_plugin.commands._numbers import number, whole
from k3dn_plugin.errors import DataError, K3DNError, OptionError, SizeError

if TYPE_CHECKING:
    from k3dn_plugin.inference.camera_files import CameraShot
    from k3dn_plugin.inference.files import Pair, PairFiles
    from k3dn_plugin.inference.frames import RestoredFrame
    from k3dn_plugin.inference.progress import ProgressBar
    from k3dn_plugin.zoo.load import LoadedRestorer

GROUP = "photographs"


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    check_inputs(arguments)
    # Imported here, because torch takes seconds and --help should not.
    from k3dn_plugin.inference import camera_files
    from k3dn_plugin.inference import files as restore
    from k3dn_plugin.inference.progress import ProgressBar
    from k3dn_plugin.zoo.released import default_weights

    said: list[str] = []
    if arguments.files:
        pairs, unpaired, said = camera_files.find_shots(arguments.files, arguments.out)
    else:
        pairs, unpaired = restore.find_pairs(arguments.left, arguments.right, arguments.out, arguments.center)
    faults: list[K3DNError] = [*unpaired]
    total = len(pairs) + len(faults)
    results = [path for files in pairs for path in results_of(files.out, arguments)]
    restore.check_not_inputs(results, (path for files in pairs for path in files.inputs))
    for path in results:
        restore.check_writable(path)
    restorer = load_as_asked(arguments.weights or default_weights(), arguments)
    with ProgressBar(len(pairs), unit="file", shown=arguments.progress) as bar:
        for line in said:
            bar.say(f"note: {line}", error=True)
        for files in pairs:
            try:
                _restore_one(files, restorer, arguments, bar)
            except (DataError, SizeError) as error:
                if total == 1:
                    raise
                # The others are restored all the same; a full disk or a wrong setting would stop them too.
                faults.append(error)
            bar.next()
    if faults:
        rest = "; the others are restored. Not restored" if len(faults) < total else ""
        raise DataError("\n".join([f"{len(faults)} of {total} pairs could not be restored{rest}:",
                                   *(f"  {fault}" for fault in faults)]))
    return 0


def _restore_one(files: "PairFiles | CameraShot", restorer: "LoadedRestorer", arguments: argparse.Namespace,
                 bar: "ProgressBar") -> None:
    from k3dn_plugin.inference import camera_files  # as in `run`
    from k3dn_plugin.inference import files as restore
    is_pair = isinstance(files, restore.PairFiles)
    pair = restore.read_pair(files, full_scale=arguments.full_scale) if is_pair else camera_files.read_shot(
        files, swap=arguments.swap, axis=arguments.disparity_axis)
    bits = arguments.bits or pair.bits
    restore.check_format(files.out, bits)
    for line in notes(files, pair, arguments):
        bar.say(f"note: {line}", error=True)
    began = time.perf_counter()
    axis = pair.disparity_axis or arguments.disparity_axis
    frame = restore.restore_pair(restorer.frames, pair, disparity_axis=axis, strength=arguments.strength,
                                 progress=bar.tile)
    restore.write_restored(files.out, frame.image.rot90(pair.quarter_turns, (-2, -1)), bits=bits, colour=pair.colour,
                           full_scale=pair.full_scale, metadata=pair.metadata)
    seconds = time.perf_counter() - began
    bar.say(f"{files.out}: {bits} bit, {frame.tiling}, {seconds:.1f} s")
    if not frame.same_as_whole:
        bar.say("note: tiles change this network's result a little; a larger --tile or --max-memory-gb avoids it",
                error=True)
    if arguments.preview or arguments.html:
        for path in _show(files, pair, frame, restorer, arguments):
            bar.say(f"look at {path}")


def results_of(out: Path, arguments: argparse.Namespace) -> list[Path]:
    """Return all files that are written for one result: itself, --preview's and --html's."""
    return [out, *([out.with_name(f"{out.stem}_preview.jpg")] if arguments.preview else []),
            *([out.with_suffix(".html")] if arguments.html else [])]


def _show(files: "PairFiles | CameraShot", pair: "Pair", frame: "RestoredFrame", restorer: "LoadedRestorer",
          arguments: argparse.Namespace) -> list[Path]:
    """Write what --preview and --html ask for beside the result, and return the files."""
    from k3dn_plugin.inference import before_after  # as in `run`
    from k3dn_plugin.inference.files import center_of
    both = [before_after.upright(image, orientation=pair.metadata.orientation, quarter_turns=pair.quarter_turns)
            for image in (center_of(pair), frame.image)]
    written, profile = results_of(files.out, arguments)[1:], pair.metadata.profile
    if arguments.preview:
        before_after.write_preview(written[0], *both, profile=profile)
    if arguments.html:
        facts = {"result": files.out.name, "size": f"{both[0].shape[1]} x {both[0].shape[0]} pixels",
                 "weights": f"{restorer.name} ({type(restorer.restorer).__name__}), hash {restorer.weights_hash}"}
        if arguments.strength != 1:
            facts["strength"] = f"{arguments.strength:g}"
        before_after.write_page(written[-1], *both, title=f"{files.out.stem}: before and after", facts=facts,
                                profile=profile)
    return written


def check_inputs(arguments: argparse.Namespace) -> None:
    """Raise `OptionError` unless there are either camera files or both views."""
    views = [name for name in ("left", "right", "center") if getattr(arguments, name)]
    if arguments.files and views:
        raise OptionError(f"--{views[0]} and camera files ({arguments.files[0]}) exclude each other: a camera file "
                          "holds both views")
    if not arguments.files and not {"left", "right"} <= set(views):
        raise OptionError("nothing to restore: give a camera file (.CR2, .CR3, .DNG, ...), or both --left and --right")
    if arguments.swap and not arguments.files:
        raise OptionError("--swap is for camera files; exchange what --left and --right name instead")
    if arguments.full_scale is not None and (arguments.files or not 255 < arguments.full_scale <= 65535):
        raise OptionError(f"--full-scale {arguments.full_scale}: expected, with --left and --right, the largest number "
                          "of 16-bit files of fewer bits, 256 to 65535 (4095 for 12 bits)")


def notes(files: "PairFiles | CameraShot", pair: "Pair", arguments: argparse.Namespace) -> list[str]:
    """Return what looks wrong about a pair but may be meant, a line each."""
    from k3dn_plugin.data.image_metadata import can_hold_metadata  # as in `run`
    from k3dn_plugin.inference.files import PairFiles, notes_on
    named = f"{files.left} and {files.right}" if isinstance(files, PairFiles) else str(files.source)
    found = notes_on(pair, named, arguments.disparity_axis)
    if pair.metadata and not can_hold_metadata(files.out.suffix):
        found.append(f"{files.out.suffix} files hold no color profile, no orientation and no EXIF, as {named} have: "
                     "the result may look other than it")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("files", nargs="*", metavar="FILE",
                        help="camera file that holds both views (.CR2, .CR3, .DNG, ...), or a folder of such")
    parser.add_argument("--left", metavar="PATH", help="left view, or a folder of left views")
    parser.add_argument("--right", metavar="PATH", help="right view, or a folder of right views")
    parser.add_argument("--swap", action="store_true", help="exchange the views of camera files, which do not say "
                                                            "which is the left one")
    parser.add_argument("--center", metavar="PATH", help="captured combined view; default: the mean of both")
    parser.add_argument("-o", "--out", required=True, metavar="PATH",
                        help="result (.png or .tif), or a folder")
    parser.add_argument("--weights", metavar="WEIGHTS",
                        help="a name of `k3dn list --weights`, a file (ours or a published checkpoint) or a folder; "
                             "default: the released k3dn_s_real")
    parser.add_argument("--strength", type=number(0, 1), default=1.0, metavar="S",
                        help="share of the restored picture in the result, 0 to 1 (default); the rest is the center "
                             "view as it was")
    parser.add_argument("--preview", action="store_true", help="also write RESULT_preview.jpg: before and after beside "
                                                               "each other")
    parser.add_argument("--html", action="store_true", help="also write RESULT.html: a page with a slider, one file")
    parser.add_argument("--bits", type=int, choices=(8, 16), help="of the result; default: as the inputs")
    parser.add_argument("--full-scale", type=whole(256, 65535), metavar="N",
                        help="the number that stands for white in 16-bit files of fewer bits, e.g. 4095; the result "
                             "has it too")
    parser.add_argument("--disparity-axis", choices=("x", "y"),
                        help="along which the views are shifted: x (default), or y for a turned camera; raw files "
                             "know it, of a quad-pixel set this chooses the pair")
    add_inference_arguments(parser)
