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
    usual_for = ("dpdd",)


@PROTOCOLS.register_module(name="full_float")
class FullFloat(EvaluationProtocol):
    """dpdd16's formulas on frames of any bit depth; not comparable with published DPDD figures."""

    name = "full_float"
    source = "ours: the formulas of dpdd16 for frames of any bit depth"


@PROTOCOLS.register_module(name="bambnet16")
class BaMBNet16(EvaluationProtocol):
    """BaMBNet's (TIP / arXiv 2021): as dpdd16.

    It adds LPIPS with SqueezeNet on images in BGR order; `lpips_squeeze` (`--metrics`) feeds RGB and differs from it.
    """

    name = "bambnet16"
    source = "BaMBNet (Liang et al.), its official test; without its LPIPS, which feeds BGR to SqueezeNet"
    reading = "16-bit frames divided by 65535"
    bit_depth = 16
