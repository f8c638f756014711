"""Large depthwise kernels: what they refuse. Their formula is in the test of LaKDNet."""
import pytest

from k3dn_plugin.errors import OptionError
from k3dn_plugin.layers.large_kernel import LargeKernelBlock, LargeKernelMixer


@pytest.mark.parametrize("size", [0, 4, -3])
def test_even_kernels_are_refused(size):
    with pytest.raises(OptionError, match=f"kernel_size: expected an odd number.*found {size}"):
        LargeKernelMixer(4, size)


def test_the_pointwise_convolutions_always_have_a_bias():
    biases = {key for key in LargeKernelBlock(4, 3).state_dict() if key.endswith("bias") and "norm" not in key}
    assert biases == {"mixer.point1.bias", "mixer.point2.bias"}
