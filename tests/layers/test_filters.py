"""Filters that many parts share, against plain NumPy and OpenCV."""
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.layers.filters import filter_channels, gaussian_blur, total_variation, transfer_function


def test_a_product_of_spectra_is_a_periodic_convolution():
    random = np.random.default_rng(0)
    image, kernels = random.random((10, 13)), random.random((2, 5, 5))
    spectra = transfer_function(torch.from_numpy(kernels), (10, 13))
    assert spectra.shape == (2, 10, 7)
    filtered = torch.fft.irfft2(torch.fft.rfft2(torch.from_numpy(image)) * spectra, s=(10, 13)).numpy()
    for kernel, found in zip(kernels, filtered, strict=True):
        expected = sum(kernel[row, column] * np.roll(image, (row - 2, column - 2), (0, 1))
                       for row in range(5) for column in range(5))
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_gaussian_blur_is_opencvs_with_a_repeated_border(sigma):
    image = np.random.default_rng(0).random((24, 30, 3))
    side = 2 * int(np.ceil(3 * sigma)) + 1
    expected = cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    planes = torch.from_numpy(image).permute(2, 0, 1)
    np.testing.assert_allclose(gaussian_blur(planes, sigma).permute(1, 2, 0).numpy(), expected, atol=1e-6)
    torch.testing.assert_close(gaussian_blur(planes[None], sigma)[0], gaussian_blur(planes, sigma))


def test_no_sigma_changes_nothing_and_tiny_images_are_blurred():
    image = torch.rand(3, 2, 2)
    assert gaussian_blur(image, 0) is image
    assert gaussian_blur(image, 4.0).shape == image.shape


def test_total_variation_is_a_sum():
    image = torch.tensor([[[[0.0, 1.0, 1.0], [0.0, 0.0, 3.0]]]])
    assert float(total_variation(image)) == 1 + 3 + 1 + 2


@pytest.mark.parametrize("size", [(6, 6), (1, 1), (9, 9), (4, 20), (10, 9), (18, 14)])
def test_channels_are_filtered_as_by_a_depthwise_convolution_with_its_gradients(size):
    torch.manual_seed(0)
    images = torch.randn(3, 5, *size, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(5, 1, 9, 9, dtype=torch.float64, requires_grad=True)
    wanted = F.conv2d(images, kernels, padding=4, groups=5)
    found = filter_channels(images, kernels)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    towards = torch.randn_like(wanted)
    for one, other in zip(torch.autograd.grad(found, (images, kernels), towards),
                          torch.autograd.grad(wanted, (images, kernels), towards), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
