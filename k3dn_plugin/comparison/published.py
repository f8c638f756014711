"""Figures that papers and pages print, quoted with their source; never measured here."""
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Views = Literal["D", "S", "?"]


@dataclass(frozen=True)
class PublishedFigure:
    """Scores on DPDD's 76 test images, combined, as printed by `source`; None where it prints none.

    Attributes:
        method: as the source calls it, with what tells its rows apart.
        restorer: of this package, for the same network; empty where there is none.
        views: "D" for a dual-pixel pair, "S" for a single (combined) view, "?" where the source does not say.
        psnr, ssim, mae, lpips: the scores.
        params_m: parameters in millions.
        protocol: the registered protocol that the authors' evaluation follows; empty where none does or where
            theirs is not known.
        evaluation: what is known of that evaluation, in words.
        source: where the scores are printed.
    """

    method: str
    restorer: str
    views: Views
    psnr: float
    ssim: float | None
    mae: float | None
    lpips: float | None
    params_m: float | None
    protocol: str
    evaluation: str
    source: str


NUMBERS = ("psnr", "ssim", "mae", "lpips", "params_m")


def published_figures(views: Views | None = None) -> list[PublishedFigure]:
    """Return all quoted figures of DPDD, or those of one kind of input."""
    with open(Path(__file__).with_name("published.csv"), newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [
            {key: (float(value) if value else None) if key in NUMBERS else value for key, value in row.items()}
            for row in csv.DictReader(file)]
    figures = [PublishedFigure(**row) for row in rows]
    return [figure for figure in figures if views in (None, figure.views)]
