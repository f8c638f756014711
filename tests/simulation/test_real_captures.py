"""What real pairs show, as settings: drawn pictures, radii, exposure, one channel, gains, sharpening, JPEG."""
import numpy as np
import pytest
import torch

from k3dn_plugin.data.sample import SampleIndex, random_source
from k3dn_plugin.errors import OptionError
from k3dn_plugin.registry import DATASETS
from k3dn_plugin.simulation.color import linear_to_srgb, srgb_to_linear
from k3dn_plugin.simulation.pairs import simulate_scene
from k3dn_plugin.simulation.procedural import KINDS, procedural_picture
from k3dn_plugin.simulation.sensor import SensorSettings, collected, develop, expose
from k3dn_plugin.simulation.settings import (
    SimulationSettings,
    check_settings,
    draw_largest_radius,
    draw_sensor,
)

CLEAN = {"shot": 0.0, "read": 0.0, "gain": 0.0, "vignetting_share": 0.0, "distortion_share": 0.0, "field_share": 0.0}


def pictures():
    return [torch.rand(3, 120, 140, generator=torch.Generator().manual_seed(i)) for i in range(2)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_drawn_pictures_have_detail_and_are_decided_by_their_source(kind):
    for seed in range(4):
        first, again = (kind((64, 80), random_source(seed)) for _ in range(2))
        assert first.shape == (64, 80, 3) and first.dtype == np.uint8 and (first == again).all()
        assert np.abs(np.diff(first.astype(int), axis=1)).max() > 8
    light = procedural_picture((48, 56), random_source(3))
    assert light.shape == (3, 48, 56) and 0 <= float(light.min()) <= float(light.max()) <= 1


def test_drawn_pictures_join_the_photographs():
    white = [torch.ones(3, 120, 140)]
    settings = SimulationSettings(size=(48, 56), max_radius=3.0, procedural_share=0.5, flat_share=1.0, **CLEAN)
    drawn = [simulate_scene(white, settings, seed=0, index=i)["sharp"].std() > 0 for i in range(24)]
    assert 4 < sum(drawn) < 20


def test_some_pictures_are_soft_in_themselves():
    # Noise, in focus: what is soft has less contrast, in the views and in the truth alike.
    noise = [torch.rand(3, 120, 140, generator=torch.Generator().manual_seed(0))]
    settings = SimulationSettings(size=(48, 56), max_radius=3.0, soft_share=0.5, flat_share=1.0,
                                  shrink=(1.0, 1.0), **CLEAN)
    scenes = [simulate_scene(noise, settings, seed=0, index=i) for i in range(24)]
    soft = [scene["sharp"].std() < 0.15 * 65535 for scene in scenes]
    assert 4 < sum(soft) < 20
    in_focus = [scene for scene, is_soft in zip(scenes, soft, strict=True) if is_soft and not scene["defocus"].any()]
    assert in_focus and all(np.abs(scene["center"] / 65535 - scene["sharp"] / 65535).max() < 1e-3 for scene in in_focus)


def test_most_scenes_are_little_blurred_with_a_larger_power():
    draw = {power: np.array([draw_largest_radius(SimulationSettings(radius_power=power), random_source(i))
                             for i in range(400)]) for power in (1.0, 2.0, 3.0)}
    assert (draw[1.0] == 12).all() and draw[2.0].max() <= 12 and np.median(draw[2.0]) == pytest.approx(6, abs=0.8)
    assert np.median(draw[3.0]) == pytest.approx(3, abs=0.6)


def test_sensors_are_drawn_within_their_ranges():
    settings = SimulationSettings(gain=0.1, vignetting=0.17, vignetting_share=0.5, noise_scale=(0.0, 2.0),
                                  exposure=(0.05, 1.0), exposure_share=0.5, one_channel_share=0.3,
                                  sharpening_share=0.4, jpeg_share=0.2, jpeg_quality=(80, 90))
    drawn = [draw_sensor(settings, random_source(i)) for i in range(500)]
    gains = np.array([sensor.gain for sensor in drawn])
    assert 0.9 <= gains.min() < 0.92 and 1.08 < gains.max() <= 1.1
    assert np.allclose(gains.sum(1), 2), "the combined image is as bright as the truth"
    assert max(abs(sensor.ramp) for sensor in drawn) <= 0.17
    noise = np.array([sensor.shot for sensor in drawn]) / settings.shot
    assert noise.max() <= 2 and np.median(noise) < 0.7
    dark = np.array([sensor.exposure for sensor in drawn])
    assert 0.4 < (dark < 1).mean() < 0.6 and dark.min() >= 0.05 and np.median(dark[dark < 1]) == pytest.approx(
        0.05 ** 0.5, abs=0.06)
    assert 0.2 < np.mean([sensor.one_channel for sensor in drawn]) < 0.4
    assert 0.3 < np.mean([sensor.sharpening > 0 for sensor in drawn]) < 0.5
    qualities = [sensor.jpeg_quality for sensor in drawn if sensor.jpeg_quality is not None]
    assert 60 < len(qualities) < 140 and set(qualities) <= set(range(80, 91))


def test_a_dark_exposure_is_dark_for_views_and_truth_alike():
    bright, dark = (simulate_scene(pictures(), SimulationSettings(size=(48, 56), max_radius=3.0, exposure=(e, e),
                                                                  exposure_share=1.0, **CLEAN), seed=1, index=2)
                    for e in (1.0, 0.25))
    for view in ("left", "right", "sharp", "center"):
        one, other = (srgb_to_linear(torch.from_numpy(f[view].astype(np.float64) / 65535)) for f in (bright, dark))
        torch.testing.assert_close(other, one / 4, rtol=0, atol=2e-4)


def test_one_channel_is_the_green_one_with_one_noise():
    light = torch.rand(3, 16, 20, generator=torch.Generator().manual_seed(0))
    sensor = SensorSettings(one_channel=True, shot=0.05, read=0.01)
    taken = expose(collected(light, sensor), 0, sensor, random_source(0))
    torch.testing.assert_close(taken[0], taken[2])
    assert 0.005 < float((taken[0] - light[1]).std()) < 0.1
    frames = simulate_scene(pictures(), SimulationSettings(size=(48, 56), max_radius=3.0, one_channel_share=1.0),
                            seed=0, index=1)
    for view in ("left", "right", "sharp"):
        assert (frames[view][..., 0] == frames[view][..., 2]).all()


def test_sharpening_steepens_an_edge_and_keeps_flat_regions():
    light = torch.full((3, 20, 40), 0.1)
    light[..., 20:] = 0.5
    plain, sharper = (develop(light, SensorSettings(sharpening=amount)).astype(int) for amount in (0.0, 0.6))
    assert (sharper[:, :10] == plain[:, :10]).all()
    assert sharper[10, 20, 0] > plain[10, 20, 0] + 500 and sharper[10, 19, 0] < plain[10, 19, 0] - 500


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_jpeg_is_lossy_in_the_views_and_not_in_the_truth(bit_depth):
    light = torch.rand(3, 36, 44, generator=torch.Generator().manual_seed(0))
    light = torch.nn.functional.avg_pool2d(light[None], 5, 1)[0]
    sensor = SensorSettings(jpeg_quality=85)
    view, truth = (develop(light, sensor, bit_depth, compressed=c).astype(float) for c in (True, False))
    top = 2 ** bit_depth - 1
    exact = linear_to_srgb(light).permute(1, 2, 0).numpy()
    assert np.abs(truth / top - exact).max() <= 0.51 / top
    assert 0.002 < np.abs(view / top - exact).mean() < 0.2
    # Channels are not exchanged on the way.
    alike = [np.corrcoef(view[..., 0].ravel(), truth[..., channel].ravel())[0, 1] for channel in range(3)]
    assert alike[0] > max(alike[1:]) + 0.3


def test_all_of_it_is_decided_by_seed_epoch_and_index():
    dataset = DATASETS.build({
        "type": "SimulatedDualPixelDataset", "crop_size": 64, "max_radius": 6.0, "radius_power": 2.0,
        "procedural_share": 0.3, "one_channel_share": 0.3, "exposure": [0.1, 1.0], "exposure_share": 0.5,
        "sharpening_share": 0.3, "jpeg_share": 0.3, "noise_scale": [0, 2]})
    for index in range(6):
        first, again = (dataset[SampleIndex(1, index)] for _ in range(2))
        assert all((first[key] == again[key]).all() for key in ("lq", "gt", "defocus", "disparity"))
        assert first["lq"].isfinite().all() and 0 <= float(first["lq"].min()) <= float(first["lq"].max()) <= 1


@pytest.mark.parametrize("change, message", [
    ({"exposure": (0.5, 8.0)}, "exposure: expected a range"), ({"jpeg_share": 1.5}, "jpeg_share: expected a share"),
    ({"gain": 1.0}, "gain: expected a fraction"), ({"radius_power": 0.5}, "radius_power of 1 or more"),
    ({"noise_scale": (-1.0, 1.0)}, "noise_scale: expected a range"), ({"jpeg_quality": (0, 50)}, "jpeg_quality")])
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(OptionError, match=message):
        check_settings(SimulationSettings(size=(64, 64), **change))
