"""Each protocol against its published formula, written out on arrays with NumPy and OpenCV."""
import inspect
import math

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from tiny_evaluation_parts import TinyPairs

from k3dn_plugin.data.card import DatasetCard
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.evaluation.protocols.pixel4 import central
from k3dn_plugin.evaluation.protocols.pixel4_aligned import moved_to
from k3dn_plugin.evaluation.run import usual_protocol
from k3dn_plugin.registry import PROTOCOLS

NAMES = ("dpdd16", "full_float", "k3dn_resize", "basicsr_uint8", "ifan8", "drbnet8", "iniknet8", "dddnet_half",
         "dddnet8", "deeprft8", "bambnet16", "pixel4_linear", "pixel4_scaled", "pixel4_encoded",
         "pixel4_aligned", "linear_float")


def build(name, **arguments):
    return PROTOCOLS.build({"type": name, **arguments})


def array(image):
    """(3, H, W) tensor to (H, W, 3) float64."""
    return image.permute(1, 2, 0).double().numpy()


def psnr(a, b):
    return 10 * math.log10(1 / np.mean((a - b) ** 2))


def ssim7(a, b):
    return structural_similarity(a, b, data_range=1, channel_axis=2)


@pytest.fixture
def sample():
    return TinyPairs(size=(60, 84))[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_protocol(name, sample):
    protocol = build(name)
    assert protocol.name == name and name in PROTOCOLS.names()
    prepared = protocol.prepare(sample)
    assert prepared["name"] == sample["name"]
    assert prepared["lq"].shape[-2:] == prepared["center"].shape[-2:]
    restored = protocol.finish(prepared["center"] * 3 - 1, prepared)
    assert restored.shape == prepared["gt"].shape and restored.dtype == torch.float32
    assert 0 <= restored.min() and restored.max() <= 1
    scores = protocol.score(restored, prepared["gt"])
    assert list(scores) == list(protocol.metrics) and all(math.isfinite(v) for v in scores.values())
    assert protocol.do_nothing(sample, prepared).shape == prepared["gt"].shape
    facts = protocol.facts()
    assert facts["name"] == name and list(facts["metrics"]) == list(scores) and facts["source"]
    assert protocol.ranking == "psnr" and not protocol.higher_is_better("mae")
    assert protocol.display(restored).shape == restored.shape


def test_every_registered_protocol_is_tested():
    homes = {name: inspect.getmodule(PROTOCOLS.get(name)).__name__ for name in PROTOCOLS.names()}
    assert {name for name, home in homes.items() if home.startswith("k3dn_plugin.")} == set(NAMES)


@pytest.mark.parametrize("name", ["dpdd16", "full_float"])
def test_dpdd16_formula(name, sample):
    protocol = build(name)
    output = sample["center"] * 1.2 - 0.1
    clipped, truth = np.clip(array(output), 0, 1), array(sample["gt"])
    scores = protocol.score(protocol.finish(output, protocol.prepare(sample)), sample["gt"])
    assert scores["psnr"] == pytest.approx(psnr(clipped, truth), abs=1e-6)
    assert scores["ssim_uniform7"] == pytest.approx(ssim7(clipped, truth), abs=1e-6)
    assert scores["mae"] == pytest.approx(np.abs(clipped - truth).mean(), abs=1e-7)


def test_k3dn_resize_gives_the_published_size_and_values():
    protocol = build("k3dn_resize")
    sixteen = np.random.default_rng(0).integers(0, 65536, (1120, 1680, 3), dtype=np.uint16)
    view = torch.from_numpy(sixteen.astype(np.float32) / 65535).permute(2, 0, 1)
    sample = {"lq": torch.cat([view, view.flip(-1)]), "center": view, "gt": view, "name": "frame"}
    prepared = protocol.prepare(sample)
    assert prepared["lq"].shape == (6, 1152, 1792) and prepared["gt"] is view
    expected = cv2.resize(sixteen, (1792, 1152), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(np.rint(array(prepared["lq"][:3]) * 65535), expected)
    # The published script resizes values shifted by 0.5, then adds 0.5 again and clips.
    shifted = prepared["lq"][None, :3] - 0.5
    back = torch.nn.functional.interpolate(shifted, size=(1120, 1680), mode="bicubic", align_corners=False)
    expected = (back[0] + 0.5).clamp(0, 1)
    assert torch.allclose(protocol.finish(prepared["lq"][:3], prepared), expected, atol=2e-6)
    assert torch.equal(protocol.do_nothing(sample, prepared), view)


def test_k3dn_resize_of_other_sizes(sample):
    assert build("k3dn_resize").prepare(sample)["lq"].shape == (6, 128, 128)


def test_basicsr_uint8_formula(sample):
    protocol = build("basicsr_uint8")
    output = sample["center"] * 1.2 - 0.1
    prepared = protocol.prepare(sample)
    eight, truth = (np.round(np.clip(array(i), 0, 1) * 255) for i in (output, sample["gt"]))
    scores = protocol.score(protocol.finish(output, prepared), prepared["gt"])
    expected = 20 * math.log10(255 / np.sqrt(np.mean((eight - truth) ** 2)))
    assert scores["psnr"] == pytest.approx(expected, abs=1e-5)
    assert protocol.score(prepared["gt"], prepared["gt"])["psnr"] == math.inf


def basicsr_ssim(a, b):
    """BasicSR's SSIM of one channel in 0 ... 255: OpenCV's Gaussian, valid windows alone."""
    line = cv2.getGaussianKernel(11, 1.5)
    window = np.outer(line, line)

    def mean(image):
        return cv2.filter2D(image, -1, window)[5:-5, 5:-5]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mu_a ** 2, mean(b * b) - mu_b ** 2, mean(a * b) - mu_a * mu_b
    return (((2 * mu_a * mu_b + c1) * (2 * cov + c2))
            / ((mu_a ** 2 + mu_b ** 2 + c1) * (var_a + var_b + c2))).mean()


def test_basicsr_uint8_ssim(sample):
    protocol = build("basicsr_uint8")
    prepared = protocol.prepare(sample)
    restored = protocol.finish(sample["center"], prepared)
    eight, truth = np.rint(array(restored) * 255), np.rint(array(prepared["gt"]) * 255)
    expected = np.mean([basicsr_ssim(eight[..., c], truth[..., c]) for c in range(3)])
    assert protocol.score(restored, prepared["gt"])["ssim_gaussian11"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name, multiple", [("ifan8", 8), ("drbnet8", 16), ("iniknet8", 32)])
def test_eight_bit_cropped_formula(name, multiple, sample):
    protocol = build(name)
    prepared = protocol.prepare(sample)
    rows, columns = 60 // multiple * multiple, 84 // multiple * multiple
    for key in ("lq", "center", "gt"):
        sixteen = np.rint(sample[key].double().numpy() * 65535).astype(np.uint16)
        expected = (sixteen >> 8)[:, :rows, :columns] / 255
        assert np.allclose(prepared[key].numpy(), expected, atol=1e-7)
    restored = protocol.finish(prepared["center"], prepared)
    expected = psnr(array(restored), array(prepared["gt"]))
    assert protocol.score(restored, prepared["gt"])["psnr"] == pytest.approx(expected, abs=1e-6)


def test_high_byte_of_an_8_bit_frame_is_the_frame(sample):
    eight = torch.arange(256).float().reshape(1, 16, 16).repeat(3, 1, 1) / 255
    pair = {"lq": torch.cat([eight, eight]), "center": eight, "gt": eight, "name": "ramp"}
    assert torch.allclose(build("ifan8").prepare(pair)["gt"], eight, atol=1e-7)


def test_dddnet_half(sample):
    prepared = build("dddnet_half").prepare(sample)
    eight = (np.rint(array(sample["gt"]) * 65535).astype(np.uint16) >> 8) / 255
    expected = eight.reshape(30, 2, 42, 2, 3).mean((1, 3))
    assert np.allclose(array(prepared["gt"]), expected, atol=1e-6)
    assert prepared["lq"].shape == (6, 30, 42)


def test_pixel4_leaves_out_the_ring(sample):
    gt = sample["gt"] * 0.25
    gt[:, 0], gt[:, -1], gt[..., 0], gt[..., -1] = 0, 0, 0, 0
    restored = sample["center"] * 0.25
    a, b = array(restored)[1:-1, 1:-1], array(gt)[1:-1, 1:-1]
    linear = build("pixel4_linear").score(restored, gt)
    assert linear["psnr"] == pytest.approx(psnr(a, b), abs=1e-6)
    assert linear["ssim_uniform7"] == pytest.approx(ssim7(a, b), abs=1e-6)
    scaled = build("pixel4_scaled").score(restored, gt)
    assert scaled["psnr"] == pytest.approx(psnr(np.clip(a / b.max(), 0, 1), b / b.max()), abs=1e-5)


def test_the_card_of_the_data_is_checked():
    build("dpdd16").check(DatasetCard(name="dpdd", bit_depth=16))
    build("full_float").check(DatasetCard(name="dpdd", bit_depth=8))
    build("pixel4_linear").check(DatasetCard(name="pixel4", bit_depth=14, linear=True))
    with pytest.raises(OptionError, match="16-bit frames, mine holds 8-bit ones.*full_float"):
        build("dpdd16").check(DatasetCard(name="mine", bit_depth=8))
    with pytest.raises(OptionError, match="linear raw data, mine holds sRGB"):
        build("pixel4_linear").check(DatasetCard(name="mine", bit_depth=16))


def srgb(light):
    """IEC 61966-2-1, written out."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("name", ["pixel4_linear", "pixel4_scaled", "linear_float"])
def test_linear_light_is_encoded_before_and_decoded_after(name, sample):
    """The restorer sees sRGB; a restorer that gives the encoded truth back has the truth's score."""
    protocol = build(name)
    prepared = protocol.prepare(sample)
    assert np.allclose(prepared["lq"].numpy(), srgb(sample["lq"].double().numpy()), atol=1e-6)
    assert torch.equal(prepared["gt"], sample["gt"]), "the truth is scored in its own light"
    perfect = protocol.finish(protocol.fed(prepared["gt"]), prepared)
    assert (perfect - sample["gt"]).abs().max() < 1e-6
    assert torch.equal(protocol.do_nothing(sample, prepared), sample["center"].clamp(0, 1))
    assert "encoded" in protocol.facts()["light"] and "linear" in protocol.facts()["light"]


def test_pixel4_encoded_is_what_one_would_see(sample):
    """Scaled by the views' maximum, encoded, without the outermost 8 pixels: hand-made, and a larger frame is cut."""
    protocol = build("pixel4_encoded")
    dark = {key: value * 0.3 if key in ("lq", "center", "gt") else value for key, value in sample.items()}
    scale = dark["lq"].max().item()
    prepared = protocol.prepare(dark)
    assert prepared["lq"].max() == pytest.approx(1, abs=1e-6)
    scores = protocol.score(protocol.finish(prepared["center"], prepared), prepared["gt"])
    a, b = (srgb(np.clip(array(dark[key]) / scale, 0, 1))[8:-8, 8:-8] for key in ("center", "gt"))
    assert scores["psnr"] == pytest.approx(psnr(a, b), abs=1e-3)
    assert protocol.score(protocol.do_nothing(dark, prepared), prepared["gt"]) == scores
    frame = torch.rand(3, 600, 800)
    assert torch.equal(central(frame, (576, 768)), frame[:, 12:588, 16:784])


def test_pixel4_aligned_forgives_the_viewpoint_alone(sample):
    """The truth itself, moved by 2 pixels in one half and 3 in the other: far off before, and again the truth after."""
    gt = torch.nn.functional.interpolate(torch.rand(1, 3, 24, 48, generator=torch.Generator().manual_seed(1)),
                                         (96, 192), mode="bicubic")[0].clamp(0, 1)
    moved = torch.cat([gt.roll(2, -1)[..., :96], gt.roll(-3, -1)[..., 96:]], -1)
    back = moved_to(moved, gt)
    assert (moved - gt).abs()[..., 8:-8].mean() > 0.02
    assert (back - gt).abs()[..., 8:90].max() < 1e-5 and (back - gt).abs()[..., 104:-8].max() < 1e-5
    assert torch.equal(moved_to(gt, gt), gt)
    blurred = torch.nn.functional.avg_pool2d(gt[None], 5, 1, 2)[0]
    assert (moved_to(blurred, gt) - gt).square().mean() >= 0.8 * (blurred - gt).square().mean(), "blur is not forgiven"


def test_srgb_data_is_fed_as_it_is(sample):
    protocol = build("full_float")
    assert protocol.prepare(sample) is sample and protocol.fed(sample["gt"]) is sample["gt"]


def test_srgb_protocols_refuse_linear_light():
    for name in ("full_float", "basicsr_uint8"):
        with pytest.raises(OptionError, match="mine holds linear light.*linear_float"):
            build(name).check(DatasetCard(name="mine", bit_depth=14, linear=True))


class Card:
    """A data set that is its card."""

    def __init__(self, **facts):
        self.card = DatasetCard(**facts)


@pytest.mark.parametrize("facts, wanted", [
    ({"name": "pixel4", "bit_depth": 14, "linear": True}, "pixel4_linear"),
    ({"name": "mine", "bit_depth": 14, "linear": True}, "linear_float"),
    ({"name": "mine", "bit_depth": 16, "facts": {"protocol": "ifan8"}}, "ifan8"),
    ({"name": "mine", "bit_depth": 16, "facts": {"protocol": "of another version"}}, "dpdd16"),
    ({"name": "dpdd", "bit_depth": 8}, "full_float"), ({"name": "dpdd", "bit_depth": 16}, "dpdd16")])
def test_the_usual_protocol_is_the_manifests(facts, wanted):
    assert usual_protocol(Card(**facts)) == wanted


def test_dddnets_relative_rmse(sample):
    protocol = build("dddnet8")
    prepared = protocol.prepare(sample)
    scores = protocol.score(protocol.finish(prepared["center"], prepared), prepared["gt"])
    assert scores["relative_rmse"] == pytest.approx(100 * 10 ** (-scores["psnr"] / 20), abs=1e-6)
    # Its paper's pairs of PSNR and relative RMSE.
    for psnr_, percent in ((26.76, 4.59), (25.53, 5.29), (23.93, 6.36)):
        assert 100 * 10 ** (-psnr_ / 20) == pytest.approx(percent, abs=0.006)
    assert not protocol.higher_is_better("relative_rmse")


def test_deeprft_rounds_its_output_to_8_bits(sample):
    protocol = build("deeprft8")
    prepared = protocol.prepare(sample)
    output = sample["center"] * 1.1
    rounded = np.round(np.clip(array(output), 0, 1) * 255)
    truth = np.rint(array(sample["gt"]) * 65535).astype(np.uint16) >> 8
    expected = 10 * math.log10(255 ** 2 / np.mean((rounded - truth) ** 2))
    scores = protocol.score(protocol.finish(output, prepared), prepared["gt"])
    assert scores["psnr"] == pytest.approx(expected, abs=1e-5)


def test_bambnet_is_scored_as_dpdd16(sample):
    ours, theirs = build("bambnet16"), build("dpdd16")
    for protocol in (ours, theirs):
        protocol.check(DatasetCard(name="dpdd", bit_depth=16))
    assert ours.score(sample["center"], sample["gt"]) == theirs.score(sample["center"], sample["gt"])


@pytest.mark.parametrize("name", NAMES)
def test_frames_without_truth_keep_their_size(name, sample):
    protocol = build(name)
    del sample["gt"]
    prepared = protocol.prepare(sample)
    frame = protocol.finish(prepared["center"], prepared)
    assert frame.shape == protocol.do_nothing(sample, prepared).shape


def test_extra_metrics(sample):
    protocol = build("dpdd16", extra_metrics=("ssim_gaussian11",))
    assert list(protocol.score(sample["center"], sample["gt"])) == ["psnr", "ssim_uniform7", "mae",
                                                                     "ssim_gaussian11"]
    assert "ssim_gaussian11" in protocol.facts()["metrics"]


def test_truth_of_another_size_is_named(sample):
    sample["gt"] = sample["gt"][:, :50]
    protocol = build("dpdd16")
    with pytest.raises(DataError, match=r"scene_00.*\(50, 84\).*\(60, 84\)"):
        protocol.finish(sample["center"], protocol.prepare(sample))
