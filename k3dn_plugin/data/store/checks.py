"""What a manifest may say: impossible facts are refused when a store is opened or written, not met later."""
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard, cast

VIEWS = ("left", "right", "center", "sharp")
MAPS = ("disparity", "defocus", "depth")
DTYPES = ("uint8", "uint16", "float32")
MOST_KEY_BYTES = 509  # LMDB takes 511
MOST_FRAME_BYTES = 2**34
FRAME_PREFIX = "frame/"

_TEXTS = ("licence", "source", "disparity_unit", "defocus_unit", "depth_unit")
_RECORD_KEYS = {"shape", "dtype", "sha256", "source", "source_sha256", "stored_as"}


def check_facts(facts: Any) -> None:
    """Raise `ValueError`, with what is wrong, where the facts of a manifest are impossible."""
    _expect(isinstance(facts, Mapping), "its facts are not a mapping")
    depth = facts.get("bit_depth")
    _expect(depth is None or _whole(depth) and 1 <= depth <= 32, f"bit_depth is {depth!r}; expected 1 to 32")
    for key in ("linear", "single_image"):
        _expect(isinstance(facts.get(key, False), bool), f"{key} is {facts.get(key)!r}; expected true or false")
    axis, usual = facts.get("disparity_axis", "x"), facts.get("usual_shift")
    _expect(axis in ("x", "y"), f"disparity_axis is {axis!r}; expected x or y")
    _expect(usual in (None, "positive", "negative"), f"usual_shift is {usual!r}; expected positive, negative or null")
    _check_level("black_level", facts.get("black_level", 0), lambda value: 0 <= value <= 1e9, "a number of at least 0")
    if facts.get("full_scale") is not None:
        _check_level("full_scale", facts["full_scale"], lambda value: 0 < value <= 1e9, "a number above 0")
    for key in _TEXTS:
        _expect(isinstance(facts.get(key, ""), str), f"{key} is {facts.get(key)!r}; expected text")
    sets = _mapping(facts.get("crop_sets", {}), f"crop_sets is {facts.get('crop_sets')!r}; expected a mapping")
    for name, one in sets.items():
        size = one.get("size") if isinstance(one, Mapping) else None
        _expect(_pair(size) and min(size) >= 1, f"crop set {name!r} has the size {size!r}; expected [rows, columns]")


def check_scene(scene: Any, crop_sets: Mapping[str, Any]) -> None:
    """Raise `ValueError`, with what is wrong, where the record of a scene is impossible.

    Args:
        scene: the record as JSON holds it.
        crop_sets: those of the manifest's facts.
    """
    _expect(isinstance(scene, Mapping) and isinstance(scene.get("name"), str), "a scene has no name")
    name = scene["name"]
    wrong = wrong_name(name)
    _expect(not wrong, f"{name!r} cannot name a scene: {wrong}")
    views = _mapping(scene.get("views") or None, f"scene {name!r} has no frames")
    for view, record in views.items():
        _expect(view in VIEWS + MAPS, f"scene {name!r} has an unknown view {view!r}")
        _check_frame(f"{view} of scene {name!r}", view, record)
    tags = scene.get("tags")
    _expect(isinstance(tags, Mapping) and isinstance(tags.get("place", ""), str),
            f"the tags of scene {name!r} are {tags!r}")
    crops = _mapping(scene.get("crops"), f"the crops of scene {name!r} are {scene.get('crops')!r}")
    height, width = next(iter(views.values()))["shape"][:2]
    for key, origins in crops.items():
        size = crop_sets[key]["size"] if key in crop_sets else (1, 1)
        _expect(isinstance(origins, list) and all(_pair(origin) for origin in origins),
                f"the origins of crop set {key!r} of scene {name!r} are not [row, column] each")
        outside = [o for o in origins if min(o) < 0 or o[0] + size[0] > height or o[1] + size[1] > width]
        _expect(not outside, f"crop set {key!r} of scene {name!r} has an origin {outside[:1]} outside its {height} x "
                f"{width} frame")


def wrong_name(name: str) -> str:
    """Return why a text cannot name a scene, or the empty string."""
    if not name or name != name.strip("/ ") or not _fits_a_key(f"{FRAME_PREFIX}{name}/disparity"):
        return "expected 1 to 480 bytes of UTF-8 text without a slash or space at the ends"
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        return "expected folders and a name, none of them empty, '.' or '..'"
    return ""


def _check_frame(what: str, view: str, record: Any) -> None:
    _expect(isinstance(record, Mapping) and record.keys() <= _RECORD_KEYS, f"the record of {what} is not one")
    shape, dtype, stored_as = record.get("shape"), record.get("dtype"), record.get("stored_as")
    _expect(dtype in DTYPES, f"{what} is of {dtype!r}; expected {', '.join(DTYPES)}")
    numbers = shape if isinstance(shape, (list, tuple)) and all(_whole(n) and n > 0 for n in shape) else ()
    _expect((len(numbers) == 3 and numbers[2] in (1, 3) if view in VIEWS else len(numbers) == 2)
            and math.prod(numbers) * 4 <= MOST_FRAME_BYTES, f"{what} has the shape {shape!r}")
    for key in ("sha256", "source", "source_sha256"):
        _expect(isinstance(record.get(key, ""), str), f"{key} of {what} is {record.get(key)!r}; expected text")
    if stored_as is not None:
        _expect(isinstance(stored_as, str) and stored_as.startswith(FRAME_PREFIX) and _fits_a_key(stored_as),
                f"{what} is stored as {stored_as!r}")


def _check_level(key: str, value: object, fits: Callable[[float], bool], expected: str) -> None:
    for one in value.values() if isinstance(value, Mapping) else [value]:
        _expect(isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) and fits(one),
                f"{key} is {value!r}; expected {expected}, or one for each view")


def _fits_a_key(text: str) -> bool:
    try:
        return len(text.encode()) <= MOST_KEY_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _pair(value: object) -> TypeGuard[Sequence[int]]:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_whole, value))


def _mapping(value: object, wrong: str) -> Mapping[Any, Any]:
    _expect(isinstance(value, Mapping), wrong)
    return cast("Mapping[Any, Any]", value)


def _expect(right: object, what: str) -> None:
    if not right:
        raise ValueError(what)
