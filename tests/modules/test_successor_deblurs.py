"""Deblur modules from SFNet and INIKNet: their window-wise forms against the published ones and against each other."""
import pytest
import torch

from k3dn_plugin.archs.sfnet_arch import Block
from k3dn_plugin.errors import OptionError
from k3dn_plugin.modules.deblur.implicit_kernel import ImplicitKernelDeblur
from k3dn_plugin.modules.deblur.selective_frequency import SelectiveFrequencyDeblur, WindowBlock
from k3dn_plugin.modules.disparity.feature import DisparityFeature


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestSelectiveFrequency:
    def test_one_window_is_the_published_block(self):
        """Where the vector says nothing, and the quadrants' two weights agree, so that their means do not count."""
        torch.manual_seed(0)
        ours, theirs = WindowBlock(32, 4, groups=8, split=True).double().eval(), Block(32, last=True).double().eval()
        with torch.no_grad():
            for steering in (ours.to_weights, *(layer for split in ours.frequency
                                                for layer in (split.to_query, split.to_code))):
                steering.weight.zero_()
                steering.bias.zero_()
            theirs.whole.low.copy_(random(16))
            both = random(16, seed=1)
            theirs.quadrants.high.copy_(both.repeat_interleave(4))
            theirs.quadrants.low.copy_(both.repeat_interleave(4))
            ours.to_weights.bias.copy_(both.repeat(2))
            state = {key: value for key, value in theirs.state_dict().items()
                     if "unused" not in key and "quadrants" not in key}
            ours.load_state_dict({**ours.state_dict(), **state})
            x = random(2, 32, 8, 12)
            torch.testing.assert_close(ours(x, DisparityFeature(random(2, 4), (1, 1))), theirs(x))

    def test_each_window_has_its_own_kernel(self):
        module = SelectiveFrequencyDeblur(channels=16, vector_size=4).double().eval()
        split = module.blocks[-1].frequency[1]
        with torch.no_grad():
            split.to_query.weight.zero_()
            split.to_query.weight[12::25, 0] = 50  # the first number of the vector asks for the middle tap
        vectors = torch.zeros(2, 4, dtype=torch.float64)
        vectors[1, 0] = 1
        kernels = split.kernels(random(2, 8, 1, 1), split.to_query(vectors)[..., None, None])
        assert kernels[1, :, 2, 2].min() > 0.99 > 0.5 > kernels[0, :, 2, 2].max()
        torch.testing.assert_close(kernels.sum((-2, -1)), torch.ones(2, 8, dtype=torch.float64))

    def test_impossible_settings_are_reported(self):
        with pytest.raises(OptionError, match="even number of channels"):
            SelectiveFrequencyDeblur(channels=5, vector_size=4)


class TestImplicitKernel:
    def build(self, **settings):
        torch.manual_seed(0)
        return ImplicitKernelDeblur(channels=3, vector_size=4, blocks=1, bases=4, max_kernel_size=7, hidden=8,
                                    **settings).double().eval()

    @pytest.mark.parametrize("pad_windows", [False, True])
    def test_one_kernel_a_window_is_the_sum_of_all_responses(self, pad_windows):
        """The collapsed kernels against size by size, where every pixel of a window chooses alike."""
        by_window = self.build(per_pixel=False, pad_windows=pad_windows)
        by_pixel = self.build(pad_windows=pad_windows)
        by_pixel.load_state_dict({**by_pixel.state_dict(), **by_window.state_dict()})
        with torch.no_grad():
            for layer in (by_pixel.blocks[0].sizes_by_pixel, by_pixel.blocks[0].bases_by_pixel):
                layer.weight.zero_()
            x, disparity = random(2, 3, 8, 12), DisparityFeature(random(2 * 2 * 2, 4, seed=1), (2, 2))
            if not pad_windows:  # one choice everywhere: a pixel's responses are chosen where it is
                disparity = DisparityFeature(disparity.vectors[:1].expand(8, -1), (2, 2))
            torch.testing.assert_close(by_window(x, disparity), by_pixel(x, disparity))

    @pytest.mark.parametrize("per_pixel", [False, True])
    def test_padded_windows_do_not_see_their_neighbors(self, per_pixel):
        x, disparity = random(1, 3, 8, 12), DisparityFeature(random(2, 4, seed=1), (1, 2))
        other = x.clone()
        other[..., 6] += 1  # the first column of the second window
        for pad_windows in (False, True):
            block = self.build(per_pixel=per_pixel, pad_windows=pad_windows).blocks[0]
            filtered = block.by_pixel if per_pixel else block.by_window
            with torch.no_grad():
                if per_pixel:  # what the trunk sees is not at issue
                    block.trunk[0].weight.zero_()
                change = (filtered(other, disparity) - filtered(x, disparity))[..., :6].abs().max()
            assert (change == 0) == pad_windows

    def test_the_group_of_no_kernel_leaves_the_features_alone(self):
        block = self.build(per_pixel=False).blocks[0]
        with torch.no_grad():
            block.sizes_by_window.bias[0] = 100
        assert block.window_kernels(random(5, 4)).abs().max() < 1e-20

    def test_half_precision_of_the_choice_is_avoided(self):
        module = self.build(per_pixel=False).float()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert module.blocks[0].window_kernels(torch.rand(5, 4)).dtype == torch.float32
