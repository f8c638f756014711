"""Whole frames scored in float: DPDNet's and Restormer's protocol, and the same for any bit depth."""
from k3dn_plugin.evaluation.protocols.base import EvaluationProtocol
from k3dn_plugin.registry import PROTOCOLS


@PROTOCOLS.register_module(name="dpdd16")
class Dpdd16(EvaluationProtocol):
    """DPDNet's (ECCV 2020) and Restormer's (CVPR 2022): 16-bit frames, whole, unquantised output."""

    name = "dpdd16"
    source = "DPDNet (Abuolaim and Brown, ECCV 2020), Restormer (Zamir et al., CVPR 2022)"
    reading = "16-bit frames divided by 65535"
    bit_depth = 16


@PROTOCOLS.register_module(name="full_float")
class FullFloat(EvaluationProtocol):
    """dpdd16's formulas on frames of any bit depth; not comparable with published DPDD figures."""

    name = "full_float"
    source = "ours: the formulas of dpdd16 for frames of any bit depth"
