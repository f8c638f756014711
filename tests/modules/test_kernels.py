"""Symmetric kernels, the invertible channel matrix, windows, similarity, Wiener filtering: the mathematics."""
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.layers.channel_matrix import InvertibleChannelMatrix
from k3dn_plugin.layers.cost_volume import shifted_cost_volume
from k3dn_plugin.layers.filters import transfer_function
from k3dn_plugin.layers.local_similarity import local_similarity
from k3dn_plugin.layers.symmetric import inverse_spectra, kernels_from_spectra
from k3dn_plugin.layers.windows import grid_of, partition, partition_with_margin, unpartition
from k3dn_plugin.modules.deblur.kernel_set import KernelSetBlock
from k3dn_plugin.modules.deblur.wiener import WienerDeblur
from k3dn_plugin.modules.disparity.correlation import row_correlation
from k3dn_plugin.modules.disparity.feature import DisparityFeature


def random_spectra(channels=3, size=10):
    generator = torch.Generator().manual_seed(0)
    return torch.view_as_complex(torch.randn(channels, size, size // 2 + 1, 2, generator=generator,
                                             dtype=torch.float64))


def test_kernels_are_symmetric_about_the_column_and_of_unit_norm():
    kernels = kernels_from_spectra(random_spectra(), 9)
    assert kernels.shape == (3, 9, 9)
    torch.testing.assert_close(kernels, kernels.flip(-1))
    assert not torch.allclose(kernels, kernels.flip(-2))
    torch.testing.assert_close(kernels.square().sum((-2, -1)), torch.ones(3, dtype=torch.float64))


def test_reversed_spectra_are_reciprocal_and_zero_stays_finite():
    spectra = random_spectra()
    torch.testing.assert_close(spectra * inverse_spectra(spectra), torch.ones_like(spectra))
    spectra[0, 0, 0] = -1e-8
    assert inverse_spectra(spectra).isfinite().all()


def test_channel_matrix_starts_orthogonal_and_inverts():
    torch.manual_seed(0)
    mixing = InvertibleChannelMatrix(channels=7).double()
    matrix, eye = mixing.matrix(), torch.eye(7, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, eye, atol=1e-5, rtol=0)
    with torch.no_grad():
        for parameter in mixing.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    torch.testing.assert_close(mixing.inverse() @ mixing.matrix(), eye)


def test_query_weights_sum_to_one_per_window():
    block = KernelSetBlock(channels=5, vector_size=4)
    weights = block.query(torch.randn(6, 4), block.kernels())
    assert weights.shape == (6, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(6))


@pytest.mark.parametrize("size, window, grid", [((36, 42), (18, 14), (2, 3)), ((140, 210), (18, 14), (7, 15)),
                                                ((32, 32), (18, 14), (1, 2))])
def test_windows_there_and_back(size, window, grid):
    features = torch.rand(2, 3, *size)
    assert grid_of(*size, window) == grid
    windows = partition(features, grid)
    assert windows.shape[0] == 2 * grid[0] * grid[1]
    # Window 1 of image 1 is the second in the first row.
    width = size[1] // grid[1]
    torch.testing.assert_close(windows[grid[0] * grid[1] + 1],
                               features[1, :, :size[0] // grid[0], width:2 * width])
    torch.testing.assert_close(unpartition(windows, grid), features, rtol=0, atol=0)


def test_a_margin_shows_the_neighbours_and_reflects_at_the_border():
    features = torch.rand(2, 1, 6, 8)
    windows = partition_with_margin(features, (2, 2), 2)
    assert windows.shape == (8, 1, 7, 8)
    torch.testing.assert_close(windows[..., 2:-2, 2:-2], partition(features, (2, 2)))
    torch.testing.assert_close(windows[0, 0, 2:5, 6:], features[0, 0, :3, 4:6])
    torch.testing.assert_close(windows[0, 0, 0], windows[0, 0, 4])
    # A margin wider than the image goes back and forth.
    assert partition_with_margin(features, (1, 1), 9)[0, 0, 9, :9].equal(
        features[0, 0, 0][[5, 6, 7, 6, 5, 4, 3, 2, 1]])


def test_windows_that_do_not_divide_are_refused():
    with pytest.raises(SizeError, match="cannot be cut evenly"):
        grid_of(37, 42, (18, 14))


def test_cost_volume_of_both_signs_is_mirrored_with_the_pair():
    """Exchanging the views is mirroring the shifts, and one half is the published volume."""
    left, right = (torch.rand(2, 3, 4, 9, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    volume = shifted_cost_volume(left, right, 4, both_signs=True)
    assert volume.shape == (2, 6, 7, 4, 9)
    assert torch.equal(volume[:, :, 3:], shifted_cost_volume(left, right, 4))
    exchanged = shifted_cost_volume(right.flip(-1), left.flip(-1), 4, both_signs=True)
    first, second = exchanged.flip(-1).chunk(2, 1)
    # The left view's place in the exchanged volume is that of the right view's features, which moved.
    for shift in range(-3, 4):
        for x in range(max(shift, 0), 9 + min(shift, 0)):
            assert torch.equal(volume[:, :3, shift + 3, :, x], left[..., x])
            assert torch.equal(volume[:, 3:, shift + 3, :, x], right[..., x - shift])
            assert torch.equal(second[:, :, shift + 3, :, x - shift], left[..., x])
            assert torch.equal(first[:, :, shift + 3, :, x - shift], right[..., x - shift])


def test_cost_volume_shifts_the_right_view():
    left, right = torch.rand(1, 2, 3, 6), torch.rand(1, 2, 3, 6)
    volume = shifted_cost_volume(left, right, 4)
    assert volume.shape == (1, 4, 4, 3, 6)
    torch.testing.assert_close(volume[:, :2, 2, :, 2:], left[..., 2:])
    torch.testing.assert_close(volume[:, 2:, 2, :, 2:], right[..., :4])
    assert volume[:, :, 2, :, :2].abs().max() == 0


@pytest.mark.parametrize("both_signs", [False, True])
def test_cost_volume_of_few_columns_is_zero_where_a_view_has_none(both_signs):
    volume = shifted_cost_volume(torch.ones(1, 2, 3, 2), torch.ones(1, 2, 3, 2), 4, both_signs=both_signs)
    seen = volume[0, :, :, 0].sum((0, 2)) / 4
    assert seen.tolist() == ([0, 0, 1] if both_signs else []) + [2, 1, 0, 0]


def test_cost_volume_is_made_without_writing_into_slices():
    """Written so, it compiled into a kernel of a megabyte, on which g++ spent most of a minute."""
    def volume(left, right):
        return shifted_cost_volume(left, right, 4, both_signs=True)
    graph = make_fx(torch.func.functionalize(volume))(torch.rand(1, 2, 3, 6), torch.rand(1, 2, 3, 6))
    assert not [node for node in graph.graph.nodes if "scatter" in str(node.target) or "copy" in str(node.target)]


def test_row_correlation_finds_a_shift():
    features = torch.randn(1, 8, 5, 20)
    shifted = features.roll(2, -1)
    best = row_correlation(features, shifted, 3).argmax(1)
    assert (best[..., 4:-4] == 3 + 2).all()


def test_local_similarity_by_its_definition():
    query, key = torch.rand(1, 4, 6, 7, dtype=torch.float64), torch.rand(1, 4, 6, 7, dtype=torch.float64)
    similarity = local_similarity(query, key)
    assert similarity.shape == (1, 81, 6, 7)
    u, v = -1, 2
    expected = (query[0, :, 3, 2] * key[0, :, 3 + u, 2 + v]).mean()
    assert similarity[0, 9 * (u + 4) + v + 4, 3, 2].item() == pytest.approx(expected.item())
    assert similarity[0, 0, 0, 0] == 0  # shifted outside


def test_local_similarity_by_an_independent_way_and_its_gradient():
    # Taller than two strips of rows, so that their seams are seen.
    query, key = (torch.rand(2, 3, 70, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    neighbours = torch.nn.functional.unfold(key, 9, padding=4).view(2, 3, 81, 70, 5)
    wanted = (query[:, :, None] * neighbours).mean(1)
    torch.testing.assert_close(local_similarity(query, key), wanted)
    for one, other in zip(torch.autograd.grad(local_similarity(query, key).square().sum(), (query, key)),
                          torch.autograd.grad(wanted.square().sum(), (query, key))):
        torch.testing.assert_close(one, other)


class TestWiener:
    def block(self, **settings):
        torch.manual_seed(0)
        return WienerDeblur(channels=2, vector_size=4, blocks=1, kernels=6, **settings).double().blocks[0]

    def test_kernels_are_blur_kernels(self):
        kernels = self.block().queried_kernels(torch.randn(5, 4, dtype=torch.float64))
        torch.testing.assert_close(kernels, kernels.flip(-1))
        torch.testing.assert_close(kernels.sum((-2, -1)), torch.ones(5, dtype=torch.float64))
        assert (kernels > 0).all()

    def test_reblur_is_convolution_with_the_queried_kernel(self):
        block = self.block()
        vector = torch.randn(1, 4, dtype=torch.float64)
        point = torch.zeros(1, 2, 21, 21, dtype=torch.float64)
        point[..., 10, 10] = 1
        reblurred = block(point, DisparityFeature(vector, (1, 1)), reverse=True)
        torch.testing.assert_close(reblurred[0, 0, 6:15, 6:15], block.queried_kernels(vector)[0])

    def test_deblurring_undoes_reblurring_where_there_is_no_noise(self):
        torch.manual_seed(0)
        module = WienerDeblur(channels=2, vector_size=4, blocks=2, kernel_size=5,
                              noise_to_signal=1e-7).double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        disparity = DisparityFeature(torch.randn(1, 4, dtype=torch.float64), (1, 1))
        sharp = torch.rand(1, 2, 24, 24, dtype=torch.float64)
        blurred = module.reverse(sharp, disparity)
        error = (module(blurred, disparity) - sharp)[..., 8:-8, 8:-8].abs().mean()
        assert error < 0.02 * (blurred - sharp)[..., 8:-8, 8:-8].abs().mean()

    def test_starts_close_to_the_identity_and_keeps_flat_regions(self):
        torch.manual_seed(0)
        module = WienerDeblur(channels=8, vector_size=16).double()
        disparity = DisparityFeature(torch.randn(6, 16, dtype=torch.float64), (2, 3))
        features = torch.randn(1, 8, 12, 30, dtype=torch.float64)
        for step in (module, module.reverse):
            assert (step(features, disparity) - features).abs().mean() < 0.25 * features.abs().mean()
            flat = torch.full_like(features, 0.7)
            torch.testing.assert_close(step(flat, disparity), flat, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("grid", [(1, 1), (3, 3), (8, 8)])
    def test_small_ratios_do_not_wrap_round(self, grid):
        """A disc of radius 2 is undone in small windows as well as in a large one."""
        block = self.block()
        y, x = torch.meshgrid(*[(torch.arange(90, dtype=torch.float64) + 0.5) / 10 - 4.5] * 2, indexing="ij")
        kernel = (x ** 2 + y ** 2 <= 4).double().view(9, 10, 9, 10).mean((1, 3))
        kernel /= kernel.sum()
        block.queried_kernels = lambda vectors: kernel.expand(len(vectors), -1, -1)
        block.log_noise_to_signal.data.fill_(0.001).log_()
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(1, 2, 32, 32, generator=generator, dtype=torch.float64)
        sharp = torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear")
        padded = torch.nn.functional.pad(sharp, (4,) * 4, mode="reflect")
        blurred = torch.nn.functional.conv2d(padded, kernel.expand(2, 1, -1, -1), groups=2)
        disparity = DisparityFeature(torch.zeros(grid[0] * grid[1], 4, dtype=torch.float64), grid)
        before, after = ((image - sharp).square().mean() for image in (blurred, block(blurred, disparity)))
        assert after < before / 3

    def test_windows_of_one_blur_have_no_seams(self):
        block = self.block()
        vector = torch.randn(1, 4, dtype=torch.float64)
        sharp = torch.rand(1, 2, 24, 36, dtype=torch.float64)
        many, whole = DisparityFeature(vector.expand(6, 4), (2, 3)), DisparityFeature(vector, (1, 1))
        torch.testing.assert_close(block(sharp, many, reverse=True), block(sharp, whole, reverse=True))
        torch.testing.assert_close(block(sharp, many), block(sharp, whole), atol=0.02, rtol=0)

    def test_transfer_function_of_a_point_is_one(self):
        kernel = torch.zeros(1, 5, 5)
        kernel[0, 2, 2] = 1
        torch.testing.assert_close(transfer_function(kernel, (8, 9)), torch.ones(1, 8, 5).to(torch.complex64))

    def test_settings_are_checked(self):
        with pytest.raises(OptionError, match="odd kernel_size"):
            WienerDeblur(channels=2, vector_size=4, kernel_size=8)
