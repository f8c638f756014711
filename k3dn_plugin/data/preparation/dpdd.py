"""DPDD, the Canon set of Abuolaim and Brown (ECCV 2020), in the layouts in which people have it.

These are its authors' and Restormer's, and its public Hugging Face copy: Parquet shards, or a tree of PNG files.

Blurred and sharp image of a scene are two shots with different file numbers, so they are paired by the
official lists (`datasets/dpdd/*_pairs.txt`); names that no list has (a miniature, Restormer's or one's own
copy) are paired by equal names, else by sorted order, as the official code does.
"""
from collections.abc import Callable, Iterable
from pathlib import Path

from k3dn_plugin.array_files import read_array
from k3dn_plugin.data.crop_sets import PUBLISHED, PatchFilter
from k3dn_plugin.data.preparation import dpdd_shards
from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split
from k3dn_plugin.data.preparation.files import list_view, match_views
from k3dn_plugin.errors import DataError
from k3dn_plugin.files import read_file, shared_folder
from k3dn_plugin.registry import PREPARERS

SPLITS = ("train", "val", "test")
LISTS = shared_folder("datasets") / "dpdd"

# By layout: the folder of each view below the root, {split} to be filled in.
LAYOUTS = {
    "original": {"left": "{split}_l/source", "right": "{split}_r/source", "center": "{split}_c/source",
                 "sharp": "{split}_c/target"},
    "Restormer's": {"left": "{split}/DPDD/inputL", "right": "{split}/DPDD/inputR",
                    "center": "{split}/DPDD/inputC", "sharp": "{split}/DPDD/target"},
    "Restormer's patches": {"left": "{split}/DPDD/inputL_crops", "right": "{split}/DPDD/inputR_crops",
                            "center": "{split}/DPDD/inputC_crops", "sharp": "{split}/DPDD/target_crops"},
    "a folder a view": {"left": "left/{split}/source", "right": "right/{split}/source",
                        "center": "combined/{split}/source", "sharp": "combined/{split}/target"},
    "a folder a view, flat": {"left": "left/{split}", "right": "right/{split}", "center": "combined/{split}/source",
                              "sharp": "combined/{split}/target"},
}
# `dd_dp_dataset_png` is that of the Hugging Face copy.
ROOTS = (".", "dd_dp_dataset_canon", "dd_dp_dataset_canon_patch", "dd_dp_dataset_png", "Datasets")


@PREPARERS.register_module()
class DPDD(Preparer):
    """DPDD in any of its layouts."""

    name = "dpdd"
    title = "DPDD (dd_dp_dataset_canon: 16-bit PNG, 1680 x 1120)"
    tree = ("  SOURCE/{train,val,test}_l/source/NAME_L.png    left views\n"
            "  SOURCE/{train,val,test}_r/source/NAME_R.png    right views\n"
            "  SOURCE/{train,val,test}_c/source/NAME.png      combined views\n"
            "  SOURCE/{train,val,test}_c/target/TARGET.png    all-in-focus images\n"
            "or Restormer's copy:\n"
            "  SOURCE/{train,val,test}/DPDD/{inputL,inputR,inputC,target}[_crops]/NAME.png\n"
            "or the Hugging Face copy (JacobLinCool/DPDD), whose PNG tree is the first one, or:\n"
            "  SOURCE/{left,right,combined}/{train,val,test}-00000-of-0000N.parquet    (needs the extra [parquet])\n"
            "The archive is linked from github.com/Abdullah-Abuolaim/defocus-deblurring-dual-pixel")
    bits = 16
    size = (1120, 1680)
    facts = {"source": "Abuolaim and Brown, Defocus Deblurring Using Dual-Pixel Data, ECCV 2020",
             "licence": "not stated by the authors", "linear": False, "disparity_axis": "x", "usual_shift": "negative",
             "orientation": "landscape; portrait frames turned 90 degrees counter-clockwise, as DPDNet does"}

    def crop_sets(self, split: str) -> dict[str, PatchFilter]:
        """Return the filters of DPDNet and Restormer."""
        return PUBLISHED.get(split, {})

    def find(self, source: Path) -> list[Split]:
        """Return the splits that are there, in whichever layout."""
        found = []
        shards = dpdd_shards.find_root(source)
        for split in SPLITS:
            # A whole tree comes first, then shards, then a tree with folders missing, of which the user is told.
            place = _locate(source, split, all)
            read = dpdd_shards.read_split(shards, split) if place is None and shards is not None else None
            if shards is not None and read is not None:
                found.append(_split_of_shards(split, shards, *read))
            elif place := place or _locate(source, split, any):
                found.append(self._split(split, source, *place))
        if not found:
            raise self.missing(source)
        absent = [split for split in SPLITS if split not in [s.name for s in found]]
        if absent:
            found[-1].notes.append(f"no {' and no '.join(absent)} split in {source}")
        return found

    def _split(self, split: str, source: Path, layout: str, folders: dict[str, Path]) -> Split:
        files = {view: list_view(folders[view], view) for view in ("left", "right", "center")}
        names = match_views(files)
        targets = list_view(folders["sharp"], "sharp")
        notes = []
        pairs = _pair(split, names, targets, folders, notes)
        places = _places(split, names, folders["left"], source)
        scenes = [SceneFiles(name, {**{view: files[view][name] for view in files}, "sharp": pairs[name]},
                             {"place": places[name]} if name in places else {}) for name in names]
        return Split(split, scenes, facts={"layout": layout}, notes=notes)


def _split_of_shards(split: str, root: Path, pictures: dict[str, dict], truths: dict[str, str],
                     notes: list[str]) -> Split:
    """Return a split out of Parquet shards, where a row pairs a scene with its truth; official names are checked."""
    names = sorted(pictures["left"])
    official = official_pairs(split)
    if truths:
        _check_membership(split, names, official, root / "combined")
        wrong = next((name for name in names if name in official and truths[name] not in (name, official[name])), None)
        if wrong is not None:
            raise DataError(f"scene {wrong}: {pictures['center'][wrong]} has the sharp image {truths[wrong]} beside "
                            f"it, the official {split} list says {official[wrong]}. Download the shards again")
        if len(names) < len(official) and set(names) <= set(official):
            notes.append(f"incomplete: {len(names)} of the {len(official)} official {split} scenes")
    places = _places(split, names, root / "combined", root)
    scenes = [SceneFiles(name, {view: pictures[view][name] for view in ("left", "right", "center", "sharp")},
                         {"place": places[name]} if name in places else {}) for name in names]
    return Split(split, scenes, facts={"layout": "Parquet shards"}, notes=notes)


def official_pairs(split: str) -> dict[str, str]:
    """Return `{name: target}` of the official list; empty where the lists are not at hand."""
    return _two_columns(LISTS / f"{split}_pairs.txt")


def _two_columns(path: Path) -> dict[str, str]:
    """Return a list's lines of two words; empty where there is no such list."""
    if not path.is_file():
        return {}
    try:
        return dict(line.split() for line in read_file(path).decode("utf-8-sig").splitlines() if line.strip())
    except ValueError:  # bytes that are no text, too
        raise DataError(f"{path}: expected a list of two words a line; it is damaged. Install k3dn_plugin again, or "
                        "get the list from its repository") from None


def _locate(source: Path, split: str,
            enough: Callable[[Iterable[bool]], bool]) -> tuple[str, dict[str, Path]] | None:
    """Return `(layout, folder by view)` of a split of which `enough` (all or any) folders exist, else None."""
    for root in ROOTS:
        for layout, views in LAYOUTS.items():
            folders = {view: (source / root / path.format(split=split)) for view, path in views.items()}
            if enough(folder.is_dir() for folder in folders.values()):
                return layout, folders
    return None


def _pair(split: str, names: list[str], targets: dict[str, Path], folders: dict[str, Path],
          notes: list[str]) -> dict[str, Path]:
    """Return `{name: sharp file}`; what is assumed goes to `notes`."""
    official = official_pairs(split)
    strangers = [name for name in names if name not in official]
    if official and not strangers:
        if len(names) < len(official):
            notes.append(f"incomplete: {len(names)} of the {len(official)} official {split} scenes")
        if set(names) <= set(targets):
            return {name: targets[name] for name in names}
        return _pair_by_list(split, names, targets, official, folders)
    _check_membership(split, names, official, folders["center"])
    if len(targets) != len(names):
        raise DataError(f"{folders['sharp']} holds {len(targets)} images, {folders['center']} {len(names)}: "
                        "each scene needs its sharp image" + _odd_one(names, targets))
    if set(targets) == set(names):
        return {name: targets[name] for name in names}
    notes.append("names that are not the official ones: blurred and sharp images are paired by sorted order")
    return dict(zip(names, (targets[target] for target in sorted(targets))))


def _check_membership(split: str, names: list[str], official: dict[str, str], place: Path) -> None:
    """Raise where scenes are another split's, or strangers among official ones."""
    for other in SPLITS:
        belonging = [name for name in names if other != split and name in official_pairs(other)]
        if belonging:
            raise DataError(f"{place}: scene {belonging[0]} belongs to the official {other} "
                            f"split, found among {split} ({len(belonging)} such); mixing splits would score "
                            "on training data. Move each scene to its own split")
    # A stray file among official ones is a mistake; a few official names in a set of one's own are chance.
    strangers = [name for name in names if name not in official]
    if official and strangers and 2 * len(strangers) < len(names):
        raise DataError(f"{place}: {strangers[0]} is not in the official {split} list, others "
                        f"are ({len(strangers)} strangers among {len(names)}); remove or rename it")


def _pair_by_list(split: str, names: list[str], targets: dict[str, Path], official: dict[str, str],
                  folders: dict[str, Path]) -> dict[str, Path]:
    missing = [name for name in names if official[name] not in targets]
    if missing:
        strange = sorted(set(targets) - {official[name] for name in names})
        owners = {target: name for other in SPLITS for name, target in official_pairs(other).items()}
        found = (f"; instead there is {strange[0]}, the sharp image of "
                 f"{owners.get(strange[0], 'no official scene')}") if strange else ""
        raise DataError(f"scene {missing[0]}: its sharp image {official[missing[0]]}.png is not in "
                        f"{folders['sharp']} (official {split} list){found}. {len(missing)} missing: copy "
                        "the original files")
    return {name: targets[official[name]] for name in names}


def _odd_one(names: list[str], targets: dict[str, Path]) -> str:
    same = set(names) & set(targets)
    odd = sorted(set(names) ^ set(targets))
    return f"; {odd[0]} is in one of them only" if same and odd else ""


def _places(split: str, names: list[str], folder: Path, source: Path) -> dict[str, str]:
    """Return indoor or outdoor by scene: from Restormer's index files where the user has them, else our list."""
    for place in (folder.parent, folder.parent.parent, source):
        files = {label: place / f"{label}_labels.npy" for label in ("indoor", "outdoor")}
        if split == "test" and all(file.is_file() for file in files.values()):
            # One-based positions among the sorted names.
            try:
                labels = {int(i) - 1: label for label, file in files.items()
                          for i in read_array(file, "positions of scenes").ravel()}
            except (DataError, ValueError, OverflowError) as error:  # the latter two of numbers that are not finite
                raise DataError(f"{place}: indoor_labels.npy and outdoor_labels.npy should hold the positions of "
                                f"scenes, and one cannot be read ({str(error)[:150]}). Copy them again, or remove "
                                "them") from None
            if sorted(labels) == list(range(len(names))):
                return {name: labels[i] for i, name in enumerate(names)}
    return _two_columns(LISTS / f"{split}_location.txt")
