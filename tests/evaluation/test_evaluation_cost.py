"""Costs: one counter for all restorers, equal to what was measured on the published networks."""
from pathlib import Path

import pytest
import torch

from k3dn_plugin.commands._restorer_page import restorer_page
from k3dn_plugin.errors import SizeError
from k3dn_plugin.evaluation.cost import FULL_FRAME, count_macs, count_parameters, measure_cost
from k3dn_plugin.registry import ARCHS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "restorers.md"

# Measured on the published networks, for one 1120 x 1680 pair. DMENet without its auxiliary heads; RDPD
# without the memory's convolution, 69.4 G, which has nothing to remember at a first frame.
PUBLISHED = {
    "BaMBNet": (4_497_731, 1_798_719_307_776),
    "DDDNet": (10_964_814, 4_007_484_096_512),
    "DMENet": (26_939_819, 2_312_049_868_800),
    "DPDNet": (31_035_151, 1_574_298_969_600),
    "DRBNet": (11_689_616, 1_273_021_381_800),
    "DRBNetDual": (11_690_480, 1_274_647_084_200),
    "IFAN": (10_476_996, 738_460_262_400),
    "IFANDual": (10_477_860, 740_085_964_800),
    "K3DN": (16_099_350, 3_055_407_166_464),
    "KPAC": (1_578_277, 391_331_408_256),
    "KPACDual": (2_061_493, 237_575_523_456),
    "Restormer": (26_132_548, 4_457_917_296_000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_cost_is_the_published_networks(name):
    with torch.device("meta"):
        model = ARCHS.build({"type": name})
    assert (count_parameters(model), count_macs(model, padded=False)) == PUBLISHED[name]


def test_counting_leaves_the_restorer_alone_and_scales_with_the_area():
    model = ARCHS.build({"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments}).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    small, large = measure_cost(model, (48, 48)), measure_cost(model, (96, 192))
    assert small.parameters == large.parameters and small.size == (48, 48)
    assert large.macs == pytest.approx(8 * small.macs, rel=0.05)
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_padding_is_counted_unless_left_out():
    with torch.device("meta"):
        model = ARCHS.build({"type": "K3DN"})
    assert count_macs(model, FULL_FRAME) > count_macs(model, FULL_FRAME, padded=False)


def test_sizes_must_be_positive():
    with pytest.raises(SizeError, match="two positive numbers"):
        count_macs(ARCHS.build({"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments}), (0, 5))


def test_the_page_is_the_generated_one():
    """But for restorers that are not on it yet: a new one needs no edit elsewhere."""
    page, generated = PAGE.read_text(encoding="utf-8").splitlines(), restorer_page().splitlines()
    new = [name for name in ARCHS.names() if not any(f"`{name}`" in line for line in page)]
    generated = [line for line in generated if not any(f"`{name}`" in line for name in new)]
    assert [line for line in page if line] == [line for line in generated if line], (
        "the cards have changed: python tools/list_restorers.py -o docs/restorers.md")
