"""Figures of a comparison, as PNG and SVG. Labels are shown as they are, whatever they hold, and never overlap."""
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k3dn_plugin.comparison.collect import Comparison, higher_is_better, unit
from k3dn_plugin.comparison.published import published_figures
from k3dn_plugin.files import atomic_write

if TYPE_CHECKING:  # matplotlib takes long to import, and figures are drawn last
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

LONGEST = 40     # characters of a label in a figure
# Dollar signs are not mathematics, and a date would make another file of the same numbers.
STYLE: dict[Any, Any] = {"text.parse_math": False, "svg.hashsalt": "k3dn_plugin", "axes.grid": True, "grid.alpha": 0.3}


def write_figures(comparison: Comparison, folder: Path) -> dict[str, str]:
    """Write every figure as `<name>.png` and `<name>.svg`; returns `{name: svg text}` for the report."""
    from matplotlib import rc_context  # heavy
    drawn: dict[str, Callable[[], Figure | None]] = {
        "quality_parameters": lambda: quality_against(comparison, "parameters", 1e6, "parameters (M)"),
        "quality_macs": lambda: quality_against(comparison, "macs", 1e9, "MACs (G)"),
        "differences": lambda: paired_differences(comparison), "per_image": lambda: per_image(comparison),
        "learning_curves": lambda: learning_curves(comparison)}
    texts = {}
    with rc_context(STYLE):
        for name, draw in drawn.items():
            figure = draw()
            if figure is None:
                continue
            for kind in ("png", "svg"):
                buffer = io.BytesIO()
                figure.savefig(buffer, format=kind, dpi=150, bbox_inches="tight",
                               metadata={"Date": None} if kind == "svg" else None)
                with atomic_write(folder / f"{name}.{kind}") as file:
                    file.write(buffer.getvalue())
                if kind == "svg":
                    text = buffer.getvalue().decode("utf-8")
                    texts[name] = text[text.index("<svg"):]
    return texts


def short(label: str) -> str:
    """Return a label as figures show it: one line, not too long, and never taken for a hidden one."""
    text = " ".join(label.split())
    text = text if len(text) <= LONGEST else text[:LONGEST - 3] + "..."
    return f" {text}" if text.startswith("_") else text  # matplotlib hides labels that begin so


def _axes(width: float = 6.0, height: float = 4.0) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _titled(metric: str) -> str:
    better = "higher is better" if higher_is_better(metric) else "lower is better"
    return f"{metric} ({unit(metric)}, {better})" if unit(metric) else f"{metric} ({better})"


def quality_against(comparison: Comparison, cost: str, scale: float, title: str) -> "Figure":
    """Draw the ranking metric with its interval against a cost, a point a contestant, as in the paper's Figure 1."""
    figure, axes = _axes()
    points, labels = [], []
    for entry in comparison.entries:
        interval = comparison.interval(entry.label, comparison.first)
        if interval is None:
            continue
        place = (entry.cost[cost] / scale, interval.mean)
        known = interval.low == interval.low
        axes.errorbar(*place, yerr=[[place[1] - interval.low], [interval.high - place[1]]] if known else None, fmt="o",
                      capsize=3, linewidth=1, zorder=3)
        points.append(place)
        labels.append(short(entry.label))
    gray = len(points)
    if comparison.settings.published and cost == "parameters":
        quoted = [(one.params_m, one.psnr, one.method) for one in published_figures("D") if one.params_m is not None]
        axes.scatter([params for params, _, _ in quoted], [psnr for _, psnr, _ in quoted], marker="x", color="gray",
                     label="quoted: DPDD as published, not measured here")
        points += [(params, psnr) for params, psnr, _ in quoted]
        labels += [short(method) for _, _, method in quoted]
        axes.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, frameon=False)
    axes.set_xlabel(title)
    axes.set_ylabel(_titled(comparison.first))
    axes.margins(0.15)
    place_labels(axes, points, labels, gray=gray)
    return figure


OFFSETS = [(6, 4), (6, -11), (-6, 4), (-6, -11), (0, 10), (0, -17), (14, 16), (14, -22), (-14, 16), (-14, -22), (26, 0),
           (-26, 0), (0, 28), (0, -36), (30, 30), (30, -36), (-30, 30), (-30, -36), (0, 46), (0, -54),
           (60, 0), (-60, 0)]


def place_labels(axes: "Axes", points: Sequence[tuple[float, float]], labels: Sequence[str], *,
                 gray: int | None = None) -> "list[Bbox]":
    """Write a label beside each point where it touches no other label and no other point; returns their boxes.

    Labels for which no place is found are listed right of the axes.

    Args:
        gray: points from this one on have gray labels.
    """
    from matplotlib.transforms import Bbox  # heavy
    figure = axes.figure
    figure.canvas.draw()
    canvas: Any = figure.canvas  # an Agg canvas, the only kind that is made here
    renderer, frame = canvas.get_renderer(), axes.get_window_extent()
    dots = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(points)] if points else []
    placed, listed = [], []
    for number, (point, label) in enumerate(zip(points, labels, strict=True)):
        color = "gray" if gray is not None and number >= gray else "black"
        for dx, dy in OFFSETS:
            text = axes.annotate(label, point, textcoords="offset points", xytext=(dx, dy), fontsize=8, color=color,
                                 ha="left" if dx > 0 else "right" if dx < 0 else "center",
                                 arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "gray"}
                                 if abs(dx) + abs(dy) > 20 else None)
            box = text.get_window_extent(renderer)
            free = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 and \
                not any(box.overlaps(other) for other in [*placed, *(d for n, d in enumerate(dots) if n != number)])
            if free:
                placed.append(box)
                break
            text.remove()
        else:
            listed.append((point, label, color))
    for row, (point, label, color) in enumerate(listed):
        axes.annotate(str(row + 1), point, fontsize=6, ha="center", va="center", color="white", zorder=4)
        text = axes.annotate(f"{row + 1}  {label}", (1.02, 1 - 0.05 * row), xycoords="axes fraction", fontsize=8,
                             color=color, va="top")
        placed.append(text.get_window_extent(renderer))
    return placed


def paired_differences(comparison: Comparison) -> "Figure | None":
    """Draw each rival's difference from the reference: every image as a point, the mean with its interval."""
    found = {entry.label: comparison.difference(entry.label, comparison.first) for entry in comparison.ranked()}
    found = {label: one for label, one in found.items() if one is not None}
    if not found:
        return None
    figure, axes = _axes(7.5, 1.2 + 0.5 * len(found))
    for row, one in enumerate(reversed(found.values())):
        values = sorted(one.differences.values())
        # Spread over the row's height by rank, so that points do not hide each other.
        heights = [row + 0.5 * (((7 * rank) % 11) / 10 - 0.5) for rank in range(len(values))]
        axes.scatter(values, heights, s=10, alpha=0.45, color="tab:blue", linewidths=0)
        if one.low == one.low:
            axes.errorbar(one.mean, row, xerr=[[one.mean - one.low], [one.high - one.mean]], fmt="D", markersize=5,
                          color="black", capsize=4, zorder=3)
    axes.axvline(0, color="gray", linewidth=1)
    axes.set_yticks(range(len(found)), [short(label) for label in reversed(found)])
    axes.set_ylim(-0.6, len(found) - 0.4)
    sense = "right of 0 is better" if higher_is_better(comparison.first) else "left of 0 is better"
    axes.set_xlabel(f"{comparison.first} minus that of {short(comparison.reference)}, by image ({sense})")
    return figure


def per_image(comparison: Comparison) -> "Figure | None":
    """Draw the ranking metric of every image, ordered by the reference's."""
    order = sorted(comparison.scores(comparison.reference, comparison.first).items(), key=lambda item: item[1])
    names = [name for name, _ in order]
    if not names:
        return None
    figure, axes = _axes(7.5, 4.0)
    lines, labels = [], []
    for entry in comparison.entries:
        scores = comparison.scores(entry.label, comparison.first)
        lines += axes.plot([scores.get(name, math.nan) for name in names], marker=".", linewidth=1)
        labels.append(short(entry.label))
    if len(names) <= 24:
        axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=60, ha="right", fontsize=7)
    axes.set_xlabel(f"images, ordered by {short(comparison.reference)}")
    axes.set_ylabel(_titled(comparison.first))
    _legend(axes, lines, labels)
    return figure


def learning_curves(comparison: Comparison) -> "Figure | None":
    """Draw the validated ranking metric against the samples really seen; None where nothing was trained here."""
    figure, axes = _axes(7.5, 4.0)
    lines, labels = [], []
    for entry in comparison.entries:
        for seed, run in entry.runs.items():
            points = [(row["samples"], row[f"val/{comparison.first}"]) for row in run["history"]
                      if row.get(f"val/{comparison.first}") is not None]
            if points:
                lines += axes.plot(*zip(*points, strict=True), marker="o", markersize=3)
                labels.append(f"{short(entry.label)}, seed {seed}")
    if not lines:
        return None
    axes.set_xlabel("training samples seen")
    axes.set_ylabel(f"{_titled(comparison.first)}, in validation")
    _legend(axes, lines, labels)
    return figure


def _legend(axes: "Axes", lines: Sequence, labels: Sequence[str]) -> None:
    """A legend right of the axes, where it hides nothing."""
    axes.legend(lines, labels, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
