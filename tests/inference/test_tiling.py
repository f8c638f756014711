"""Tiles join to the picture of the whole frame; memory bounds and running out of memory shrink them."""
import contextlib

import pytest
import torch
from tiny_evaluation_parts import EvaluationConv, EvaluationIdentity

from k3dn_plugin.archs.nafnet_arch import NAFNet
from k3dn_plugin.errors import OptionError
from k3dn_plugin.inference import frames
from k3dn_plugin.inference.frames import FrameRestorer
from k3dn_plugin.inference.memory import GIB, PeakMemory, is_out_of_memory, memory_available, memory_in_use, release
from k3dn_plugin.inference.self_ensemble import flip_image, flipped, self_ensemble
from k3dn_plugin.inference.settings import InferenceSettings
from k3dn_plugin.inference.tiling import even_tile, plan_tiles

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(60, 84), (33, 150), (101, 37)])
@pytest.mark.parametrize("tile", [64, 80])
@pytest.mark.parametrize("restorer", [EvaluationIdentity, EvaluationConv])
def test_tiles_equal_the_whole(restorer, tile, size):
    network = restorer().eval()
    lq = torch.rand(2, 6, *size)
    center = lq[:, :3] if restorer is EvaluationIdentity else None
    whole = FrameRestorer(network)(lq, center)
    tiled = FrameRestorer(network, InferenceSettings(tile=tile))(lq, center)
    assert whole.tiling == "whole" and whole.image.shape == (2, 3, *size)
    with torch.no_grad():
        assert torch.equal(whole.image, network(lq, center))
    assert tiled.same_as_whole
    assert (tiled.image - whole.image).abs().max() < 1e-6


def test_tiles_too_small_for_the_margin_say_so():
    network = EvaluationConv().eval()
    lq = torch.rand(1, 6, 60, 84)
    whole, tiled = FrameRestorer(network)(lq), FrameRestorer(network, InferenceSettings(tile=8))(lq)
    assert not tiled.same_as_whole and "tiles of 8 x 8" in tiled.tiling
    # What lies deep inside a tile still agrees; where tiles meet it does not.
    assert 1e-6 < (tiled.image - whole.image).abs().max() < 1


@pytest.mark.parametrize("tile", [66, 72])
def test_tiles_of_networks_that_pad_inside_keep_their_cells(tile):
    """NAFNet takes any size, but halves it twice here; attention aside, it looks 15 pixels far."""
    torch.manual_seed(0)
    network = NAFNet(**NAFNet.tiny_arguments).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            parameter.data.fill_(1)
        if name.endswith("attention.weight"):
            parameter.data.zero_()
    lq = torch.rand(1, 6, 101, 150)
    whole, tiled = FrameRestorer(network)(lq), FrameRestorer(network, InferenceSettings(tile=tile))(lq)
    assert whole.tiling == "whole" and "tiles" in tiled.tiling
    torch.testing.assert_close(tiled.image, whole.image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frame, tile, multiple, margin", [
    ((64, 96), (32, 32), (8, 8), 4), ((144 * 7, 112 * 15), (288, 336), (144, 112), 64),
    ((40, 40), (8, 8), (8, 8), 30), ((100, 90), (20, 50), (1, 1), 0), ((101, 150), (64, 48), (16, 16), 20)])
def test_plan_covers_every_pixel(frame, tile, multiple, margin):
    plan = plan_tiles(frame, tile, multiple=multiple, margin=margin)
    total = torch.zeros(frame)
    for row, column in plan.origins():
        assert row % multiple[0] == column % multiple[1] == 0
        weights = plan.weights(row, column)
        assert row + weights.shape[0] <= frame[0] and column + weights.shape[1] <= frame[1]
        total[row:row + plan.tile[0], column:column + plan.tile[1]] += weights
    assert total.min() > 0


def test_even_tile_needs_no_more_tiles():
    even = even_tile(1680, 1328, step=8, margin=16)
    assert even < 900
    plans = [plan_tiles((8, 1680), (8, s), multiple=(8, 8), margin=16) for s in (1328, even)]
    assert len(plans[0].columns) == len(plans[1].columns) == 2


class Hungry(EvaluationConv):
    """Takes 512 bytes a pixel more than it needs."""

    def restore(self, views):
        extra = torch.ones(views.shape[-2] * views.shape[-1], 128)
        return super().restore(views) + 0 * extra.amax()


def test_memory_bound_decides_the_tile():
    network, lq = Hungry().eval(), torch.rand(1, 6, 640, 960)
    whole = FrameRestorer(network, InferenceSettings(max_memory_gb=1000))(lq)
    assert whole.tiling == "whole"
    release(CPU)
    floor = memory_in_use(CPU)
    assert whole.peak_bytes > floor + 200 * 2 ** 20
    bound = floor + 160 * 2 ** 20
    bounded = FrameRestorer(network, InferenceSettings(max_memory_gb=bound / GIB))
    frame = bounded(lq)
    assert "tiles" in frame.tiling and frame.same_as_whole
    assert frame.peak_bytes <= bound
    assert (frame.image - whole.image).abs().max() < 1e-6


def test_bound_below_the_smallest_tile():
    with pytest.raises(OptionError, match="max_memory_gb 0.001 is too little: EvaluationConv needs .* GiB"):
        FrameRestorer(EvaluationConv().eval(), InferenceSettings(max_memory_gb=0.001))(torch.rand(1, 6, 64, 64))


class Greedy(EvaluationConv):
    """Runs out of memory above a number of pixels."""

    limit = 40 * 40
    error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def restore(self, views):
        if views.shape[-2] * views.shape[-1] > self.limit:
            raise self.error
        return super().restore(views)


@pytest.mark.parametrize("error", [
    Greedy.error, MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: "
                                              "can't allocate memory: you tried to allocate 8 bytes")])
def test_running_out_of_memory_is_tried_again_smaller(error):
    network = Greedy().eval()
    network.error = error
    run, lq = FrameRestorer(network), torch.rand(1, 6, 64, 96)
    frame = run(lq)
    assert "tiles of" in frame.tiling and frame.image.shape == (1, 3, 64, 96)
    # The next frame starts with what worked.
    again = run(lq)
    assert again.tiling == frame.tiling and torch.equal(again.image, frame.image)


def test_running_out_of_memory_at_the_smallest_tile():
    network = Greedy().eval()
    network.limit = 10
    with pytest.raises(OptionError, match="even with tiles of 8 x 8"):
        FrameRestorer(network)(torch.rand(1, 6, 64, 96))


def test_other_errors_pass():
    network = Greedy().eval()
    network.error = RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        FrameRestorer(network)(torch.rand(1, 6, 64, 96))


def test_large_frames_on_the_cpu_are_measured_first(monkeypatch):
    network = EvaluationConv().eval()
    monkeypatch.setattr(frames, "UNMEASURED_PIXELS", 100)
    monkeypatch.setattr(frames, "memory_available", lambda device: memory_in_use(device) + 2 ** 40)
    assert FrameRestorer(network)(torch.rand(1, 6, 64, 96)).tiling == "whole"
    monkeypatch.setattr(frames, "memory_available", lambda device: 2 ** 20)
    with contextlib.suppress(OptionError):
        assert "tiles" in FrameRestorer(network)(torch.rand(1, 6, 640, 960)).tiling


def test_bad_settings():
    with pytest.raises(OptionError, match="tile"):
        FrameRestorer(EvaluationConv(), InferenceSettings(tile=0))
    with pytest.raises(OptionError, match="max_memory_gb"):
        FrameRestorer(EvaluationConv(), InferenceSettings(max_memory_gb=-1))


def test_memory_is_measured():
    before = memory_in_use(CPU)
    with PeakMemory(CPU) as peak:
        block = torch.ones(2 ** 25)  # 128 MiB
        del block
    assert before > 2 ** 20 and peak.bytes >= before + 100 * 2 ** 20
    assert memory_available(CPU) > before
    assert not is_out_of_memory(ValueError("out of memory"))


def test_bfloat16():
    network, lq = EvaluationConv().eval(), torch.rand(1, 6, 64, 96)
    half = FrameRestorer(network, InferenceSettings(precision="bfloat16"))(lq).image
    assert half.dtype == torch.float32
    assert 0 < (half - FrameRestorer(network)(lq).image).abs().max() < 0.05


def test_flips_are_their_own_inverse_and_exchange_the_views():
    lq, center = torch.rand(1, 6, 8, 10), torch.rand(1, 3, 8, 10)
    for rows in (False, True):
        for columns in (False, True):
            there = flipped(lq, center, rows=rows, columns=columns)
            back = flipped(*there, rows=rows, columns=columns)
            assert torch.equal(back[0], lq) and torch.equal(back[1], center)
            left = lq[:, 3:] if columns else lq[:, :3]
            assert torch.equal(there[0][:, :3], flip_image(left, rows=rows, columns=columns))
    assert flipped(lq, None, rows=True, columns=True)[1] is None


def test_self_ensemble_is_invariant():
    network, lq = EvaluationConv().eval(), torch.rand(1, 6, 40, 48)
    ensemble = FrameRestorer(network, InferenceSettings(self_ensemble=True))
    once = ensemble(lq).image
    for rows, columns in ((True, False), (False, True), (True, True)):
        other = ensemble(flipped(lq, None, rows=rows, columns=columns)[0]).image
        assert torch.allclose(flip_image(other, rows=rows, columns=columns), once, atol=1e-6)
    assert (once - FrameRestorer(network)(lq).image).abs().max() > 1e-4
    assert torch.allclose(self_ensemble(lambda pair, _: pair[:, :3] + pair[:, 3:], lq), lq[:, :3] + lq[:, 3:],
                          atol=1e-6)
