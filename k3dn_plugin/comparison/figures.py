"""Figures of a comparison, as PNG and SVG."""
import io

from k3dn_plugin.comparison.collect import Comparison
from k3dn_plugin.comparison.published import published_figures
from k3dn_plugin.files import atomic_write


def write_figures(comparison: Comparison, folder) -> dict[str, str]:
    """Write every figure as `<name>.png` and `<name>.svg`; returns `{name: svg text}` for the report."""
    import matplotlib  # slow to import
    matplotlib.use("Agg")
    found = {"quality_parameters": quality_against(comparison, "parameters", 1e6, "parameters (M)"),
             "quality_macs": quality_against(comparison, "macs", 1e9, "MACs (G)"),
             "per_image": per_image(comparison), "learning_curves": learning_curves(comparison)}
    texts = {}
    for name, figure in found.items():
        if figure is None:
            continue
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            # No date in the file: the same numbers make the same file.
            figure.savefig(buffer, format=kind, dpi=150, bbox_inches="tight",
                           metadata={"Date": None} if kind == "svg" else None)
            with atomic_write(folder / f"{name}.{kind}") as file:
                file.write(buffer.getvalue())
            if kind == "svg":
                text = buffer.getvalue().decode("utf-8")
                texts[name] = text[text.index("<svg"):]
    return texts


def _axes(width=6.0, height=4.0):
    from matplotlib.figure import Figure  # slow to import
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def quality_against(comparison, cost, unit, title):
    """The ranking metric against a cost, a point a contestant, as in the paper's Figure 1."""
    figure, axes = _axes()
    for entry in comparison.entries:
        value = comparison.mean(entry.label, comparison.first)
        if value is not None:
            axes.scatter(entry.cost[cost] / unit, value, zorder=3)
            axes.annotate(entry.label, (entry.cost[cost] / unit, value), textcoords="offset points", xytext=(5, 4),
                          fontsize=8)
    if comparison.settings.published and cost == "parameters":
        quoted = [one for one in published_figures("D") if one.params_m is not None]
        axes.scatter([one.params_m for one in quoted], [one.psnr for one in quoted], marker="x", color="grey",
                     label="quoted: DPDD as published, not measured here")
        for one in quoted:
            axes.annotate(one.method, (one.params_m, one.psnr), textcoords="offset points", xytext=(5, -9), fontsize=7,
                          color="grey")
        axes.legend(fontsize=7)
    axes.set_xlabel(title)
    axes.set_ylabel(comparison.first)
    return figure


def per_image(comparison):
    """The ranking metric of every image, ordered by the reference's."""
    order = sorted(comparison.scores(comparison.reference, comparison.first).items(), key=lambda item: item[1])
    names = [name for name, _ in order]
    if not names:
        return None
    figure, axes = _axes(7.5, 4.0)
    for entry in comparison.entries:
        scores = comparison.scores(entry.label, comparison.first)
        axes.plot([scores.get(name) for name in names], marker=".", linewidth=1, label=entry.label)
    if len(names) <= 24:
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axes.set_xlabel(f"images, ordered by {comparison.reference}")
    axes.set_ylabel(comparison.first)
    axes.legend(fontsize=8)
    return figure


def learning_curves(comparison):
    """The validated ranking metric against samples seen; None where nothing was trained here."""
    figure, axes = _axes()
    drawn = False
    for entry in comparison.entries:
        for seed, run in entry.runs.items():
            share = run["samples_seen"] / max(run["iterations"], 1)
            points = [(row["iteration"] * share, row[f"val/{comparison.first}"]) for row in run["history"]
                      if row.get(f"val/{comparison.first}") is not None]
            if points:
                axes.plot(*zip(*points), marker="o", markersize=3, label=f"{entry.label}, seed {seed}")
                drawn = True
    if not drawn:
        return None
    axes.set_xlabel("training samples seen")
    axes.set_ylabel(f"{comparison.first} in validation")
    axes.legend(fontsize=8)
    return figure
