"""What a recipe will do, as a table, without reading data or building a network (`tools/train.py --plan`)."""
from k3dn_plugin.training.phases import share_stage
from k3dn_plugin.training.schedule import learning_rate
from k3dn_plugin.training.stages import plan_stages

COLUMNS = ("stage", "iterations", "crop", "per device", "accumulate", "global batch", "samples seen",
           "learning rate")


def plan_rows(options, devices: int) -> list[dict]:
    """A row a phase of each stage.

    Raises:
        OptionError: a batch cannot be shared by that many devices, or the recipe is wrong.
    """
    rows, seen = [], 0
    for stage in plan_stages(options):
        rate = learning_rate(stage)
        start = 0
        for phase in share_stage(stage, devices):
            end = start + phase.iterations
            seen += phase.iterations * phase.global_batch
            crop = phase.crop_size or stage.dataset.arguments().get("crop_size")
            rows.append({
                "stage": stage.name, "iterations": f"{stage.start + start + 1:,} - {stage.start + end:,}",
                "crop": "whole" if crop is None else str(crop) if isinstance(crop, int) else
                        "{} x {}".format(*crop),
                "per device": phase.batch, "accumulate": phase.accumulate,
                "global batch": phase.global_batch, "samples seen": f"{seen:,}",
                "learning rate": f"{rate(start):.3g} -> {rate(end - 1):.3g}"})
            start = end
    return rows


def plan_text(options, devices: int) -> str:
    """The rows as aligned lines."""
    rows = plan_rows(options, devices)
    table = [COLUMNS, *([str(row[column]) for column in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in table]
    return "\n".join([f"{options.name} on {devices} device{'s' if devices > 1 else ''}", *lines])
