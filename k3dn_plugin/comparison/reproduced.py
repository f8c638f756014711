"""Scores that users measured with official weights files on DPDD, to stand beside the published ones.

They are kept in `reproduced.csv`, one row a weights file and protocol. A row is made from the `summary.json` of a
`test` run, so that nobody types numbers, and is sent in by pull request.
"""
import csv
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from k3dn_plugin.comparison.published import published_figures
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.files import atomic_write, read_file
from k3dn_plugin.registry import ARCHS, PROTOCOLS

TABLE = Path(__file__).with_name("reproduced.csv")
IMAGES = 76  # in DPDD's test set
# What a restorer of DPDD may score; outside it something else was measured. The blurred input has 23.9 dB.
PLAUSIBLE = {"psnr": (15.0, 35.0), "ssim": (0.3, 1.0), "mae": (0.0, 0.2), "lpips": (0.0, 1.0)}
# By column, the metrics that may fill it; a protocol has one SSIM.
METRICS = {"psnr": ("psnr",), "ssim": ("ssim_uniform7", "ssim_gaussian11"), "mae": ("mae",), "lpips": ("lpips_alex",)}


@dataclass(frozen=True)
class ReproducedScore:
    """One row: what an official file scores on DPDD's test set, measured by a user of this package.

    Attributes:
        restorer: as registered.
        method: the row of `published.csv` that it stands beside.
        file, sha256: the official weights file, its name and its hash.
        protocol: as registered.
        images: scored, all 76.
        psnr, ssim, mae, lpips: means over the images; the protocol's SSIM; LPIPS (AlexNet) where it was computed.
        data_hash: of the prepared store.
        version: of this package.
        device: that computed them.
        by: who measured.
    """

    restorer: str
    method: str
    file: str
    sha256: str
    protocol: str
    images: int
    psnr: float
    ssim: float
    mae: float
    lpips: float | None
    data_hash: str
    version: str
    device: str
    by: str


COLUMNS = tuple(field.name for field in fields(ReproducedScore))


def reproduced_scores(path: Path = TABLE) -> list[ReproducedScore]:
    """Return all rows of the table, checked.

    Raises:
        DataError: a row is not one, is of an unknown restorer or protocol, or has values that cannot be.
    """
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{path}: expected the columns {', '.join(COLUMNS)}; found "
                            f"{', '.join(reader.fieldnames or ()) or 'none'}")
        scores, seen = [], {}
        for number, row in enumerate(reader, start=2):
            where = f"{path}, line {number}"
            score = _read(row, where)
            check_score(score, where)
            first = seen.setdefault((score.sha256, score.protocol), number)
            if first != number:
                raise DataError(f"{where}: the same file and protocol stand in line {first}; keep one of them")
            scores.append(score)
    return scores


def check_score(score: ReproducedScore, where: str = "a reproduced score") -> None:
    """Raise `DataError` unless a row names what there is and holds values that can be."""
    methods = [figure.method for figure in published_figures() if figure.restorer == score.restorer]
    wrong = {
        "restorer": score.restorer not in ARCHS.names() and f"a registered restorer, not {score.restorer!r}",
        "method": score.method not in methods and
        f"one that published.csv has for {score.restorer} ({', '.join(methods) or 'none'}), not {score.method!r}",
        "protocol": score.protocol not in PROTOCOLS.names() and
        f"one of {', '.join(PROTOCOLS.names())}, not {score.protocol!r}",
        "sha256": not re.fullmatch("[0-9a-f]{64}", score.sha256) and
        f"the 64 hexadecimal digits of the weights file's SHA-256, not {score.sha256!r}",
        "images": score.images != IMAGES and f"all {IMAGES} of DPDD's test set, not {score.images}",
        **{name: not getattr(score, name) and "a text, not nothing"
           for name in ("file", "data_hash", "version", "device", "by")},
        **{name: f"a value of {low} to {high}, not {getattr(score, name)}"
           for name, (low, high) in PLAUSIBLE.items() if not _plausible(score, name, low, high)}}
    for name, expected in wrong.items():
        if expected:
            raise DataError(f"{where}: {name}: expected {expected}")


def score_of_summary(summary: Mapping, *, by: str, method: str | None = None) -> ReproducedScore:
    """Return the row of a `summary.json`, as `test` writes it.

    Args:
        summary: its content.
        by: who measured.
        method: the row of `published.csv` to stand beside; needed where there are several of the restorer.

    Raises:
        OptionError: the run was not one of an official file on the whole of DPDD's test set, at full precision and
            without anything that changes the result; or the method has to be chosen.
        DataError: as `check_score`.
    """
    try:
        origin, protocol = summary["provenance"], summary["protocol"]["name"]
        weights, settings, means = origin["weights"], origin["settings"], summary["means"]
        faults = {
            f"weights of origin {weights['origin']!r}, not of an official file":
            weights["origin"] != "official weights",
            f"the data set {origin['data']['name']!r}, not dpdd": origin["data"]["name"] != "dpdd",
            f"precision {settings['amp']}, not float32": settings["amp"] is not None,
            "self-ensemble, which the papers do not use": settings["self_ensemble"],
            "tiles that change the result": summary["tiling_changes_result"]}
        found = [fault for fault, there in faults.items() if there]
        if found:
            raise OptionError(f"this run does not reproduce a published score: it has {'; '.join(found)}")
        methods = list(dict.fromkeys(figure.method for figure in published_figures()
                                     if figure.restorer == origin["restorer"]))
        if method is None and len(methods) != 1:
            raise OptionError(f"{origin['restorer']} has {len(methods)} published rows ({', '.join(methods)}); "
                              "choose one by --method")
        scores: dict[str, Any] = {
            column: next((round(means[name], 4) for name in names if name in means), None)
            for column, names in METRICS.items()}
        score = ReproducedScore(
            restorer=origin["restorer"], method=method or methods[0], file=Path(weights["file"]).name,
            sha256=weights["sha256"], protocol=protocol, images=summary["images"],
            **scores,
            data_hash=origin["data_hash"], version=origin["versions"]["k3dn_plugin"], device=origin["device"], by=by)
    except (KeyError, TypeError) as error:
        raise OptionError("expected the summary.json that `test` writes beside per_image.csv; found something else "
                          f"({type(error).__name__}: {error})") from None
    check_score(score)
    return score


def add_score(summary: Path, *, by: str, method: str | None = None, path: Path = TABLE) -> ReproducedScore:
    """Add the row of a `summary.json` to the table and return it; see `score_of_summary`."""
    try:
        content = json.loads(read_file(summary))
    except (OSError, ValueError) as error:
        raise OptionError(f"{summary}: expected the summary.json of a `test` run ({error})") from None
    score = score_of_summary(content, by=by, method=method)
    rows = [row for row in reproduced_scores(path) if (row.sha256, row.protocol) != (score.sha256, score.protocol)]
    rows = sorted([*rows, score], key=lambda row: (row.restorer, row.method, row.protocol, row.file))
    with atomic_write(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in asdict(row).items()} for row in rows)
    return score


def _plausible(score: ReproducedScore, name: str, low: float, high: float) -> bool:
    value = getattr(score, name)
    return name == "lpips" if value is None else low <= value <= high


def _read(row: Mapping, where: str) -> ReproducedScore:
    """A row's texts as values."""
    if None in row or None in row.values():
        raise DataError(f"{where}: expected {len(COLUMNS)} fields, one a column")
    try:
        numbers = {name: float(row[name]) if row[name] or name != "lpips" else None for name in PLAUSIBLE}
        return ReproducedScore(**{**row, **numbers, "images": int(row["images"])})
    except ValueError as error:
        raise DataError(f"{where}: expected numbers in images, psnr, ssim, mae and lpips (lpips may be empty): "
                        f"{error}") from None
