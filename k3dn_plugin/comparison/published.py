"""Figures that papers and pages print, quoted with their source; never measured here."""
import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedFigure:
    """PSNR on DPDD's 76 test images, combined, as printed by `source`; parameters in millions or None."""

    method: str
    views: str
    psnr: float
    params_m: float | None
    source: str


def published_figures() -> list[PublishedFigure]:
    """All quoted figures of DPDD, dual-pixel input."""
    with open(Path(__file__).with_name("published.csv"), newline="", encoding="utf-8") as file:
        return [PublishedFigure(row["method"], row["views"], float(row["psnr"]),
                                float(row["params_m"]) if row["params_m"] else None, row["source"])
                for row in csv.DictReader(file)]
