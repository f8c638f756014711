"""The recipes for real photographs: the page about the simulator states the settings that they have."""
import inspect
import re
from pathlib import Path

import pytest

from k3dn_plugin.options import load_options
from k3dn_plugin.simulation.dataset import SimulatedDualPixelDataset

PAGE = Path(__file__).resolve().parents[2] / "docs" / "simulation.md"
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in
        PAGE.read_text(encoding="utf-8").partition("| stage `base` |")[2].splitlines() if line.startswith("| `")]


def stated(cell, names):
    """The values of a cell by setting: "0.1, 0 to 1" are 0.1 and [0, 1]."""
    values = [value.strip("`") for value in cell.split(", ")]
    ranges = [[float(end) for end in value.split(" to ")] if re.fullmatch(r"[\d.]+( to [\d.]+)?", value) else value
              for value in values]
    return {name: value if isinstance(value, str) or len(value) > 1 else value[0]
            for name, value in zip(names, ranges, strict=True)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_page_states_what_the_recipe_draws(row):
    names = re.findall(r"`(\w+)`", row[0])
    options = load_options("k3dn_s_real")
    signature = inspect.signature(SimulatedDualPixelDataset).parameters
    defaults = {name: signature[name].default for name in names}
    recipe = {**defaults, **{k: v for k, v in options.datasets.train.arguments().items() if k in names}}
    first = {**recipe, **{k: v for k, v in options.train.stages[0].datasets_train.items() if k in names}}
    for cell, drawn in zip(row[2:], (defaults, recipe, first), strict=True):
        if cell == "same":
            assert drawn == recipe
        elif cell == "none":
            assert drawn[names[-1]] == 0
        else:
            for name, value in stated(cell, names).items():
                found = list(drawn[name]) if isinstance(drawn[name], (tuple, list)) else drawn[name]
                assert (found if isinstance(value, list) or not isinstance(found, list) else found[0]) == value, name


def test_the_table_was_found():
    assert len(ROWS) >= 10
