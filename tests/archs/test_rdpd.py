"""RDPD beyond what every restorer is asked: its LSTM, radial channel, padding, sequences and Keras files."""
import math

import pytest
import torch

from k3dn_plugin.archs.rdpd_arch import RDPD, ConvLSTM, hard_sigmoid, pad_both_sides, radial_distance
from k3dn_plugin.errors import CheckpointError, OptionError, SizeError
from k3dn_plugin.layers.keras import RepeatUp
from k3dn_plugin.zoo.formats.base import official_format
from k3dn_plugin.zoo.formats.rdpd import tensors_in_order


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**arguments):
    torch.manual_seed(0)
    model = RDPD(**{"width": 2, **arguments}).double().eval()
    with torch.no_grad():
        model.out.bias += 0.5  # away from the clip
    return model


def test_parameters_of_the_published_network():
    with torch.device("meta"):
        model = RDPD()
    assert sum(p.numel() for p in model.parameters()) == 24_278_703
    assert len(model.state_dict()) == len(tensors_in_order()) == 49


def test_hard_sigmoid_is_that_of_old_keras():
    found = hard_sigmoid(torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.3, 0.5, 0.7, 1.0]))


def test_lstm_step_by_step():
    torch.manual_seed(0)
    lstm = ConvLSTM(2, dropout=0.4).double().eval()
    frames = random(1, 3, 2, 4, 5)
    with torch.no_grad():
        found, state = lstm(frames)
        hidden = cell = torch.zeros(1, 2, 4, 5, dtype=torch.float64)
        for t in range(3):
            i, f, c, o = (lstm.conv_x(frames[:, t]) + lstm.conv_h(hidden)).split(2, 1)
            cell = hard_sigmoid(f) * cell + hard_sigmoid(i) * c.tanh()
            hidden = hard_sigmoid(o) * cell.tanh()
            torch.testing.assert_close(found[:, t], hidden)
    torch.testing.assert_close(state.cell, cell)


def test_dropout_masks_each_gate_and_stays_over_time():
    torch.manual_seed(0)
    lstm = ConvLSTM(4, dropout=0.5).double()
    frame = random(2, 1, 4, 6, 6)
    gates = lstm.input_gates(frame.expand(2, 3, 4, 6, 6))
    torch.testing.assert_close(gates[:, 0], gates[:, 2])
    lstm.dropout = 0.0
    torch.testing.assert_close(lstm.input_gates(frame), lstm.eval().input_gates(frame))
    lstm.train().dropout = 1e-12
    torch.testing.assert_close(lstm.input_gates(frame), lstm.eval().input_gates(frame))


def test_up_looks_down_and_right():
    up = RepeatUp(1, 1).double()
    with torch.no_grad():
        up.weight.fill_(1.0)
        up.bias.zero_()
        found = up(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]).double())
    assert found.shape == (1, 1, 4, 4)
    assert found[0, 0, 0].tolist() == [4, 6, 8, 4] and found[0, 0, 3, 3] == 4


def test_radial_distance_is_the_published_mask():
    distance = radial_distance(1120, 1680)
    assert distance.shape == (1120, 1680)
    assert distance[0, 0] == 1 and distance[560, 840] == 0
    wanted = round(255 * math.hypot(100 - 840, 30 - 560) / math.hypot(560, 840)) / 255
    assert distance[30, 100].item() == pytest.approx(wanted)


@pytest.mark.parametrize("size, before", [(16, 0), (9, 4), (8, 4), (5, 6), (3, 7)])
def test_padding_is_symmetric_on_both_sides(size, before):
    column = torch.arange(float(size)).view(1, size, 1)
    padded, (top, left) = pad_both_sides(column.expand(1, size, 16), 16)
    assert padded.shape == (1, 16, 16) and (top, left) == (before, 0)
    torch.testing.assert_close(padded[:, top:top + size, :1], column)
    if size == 9:
        assert padded[0, :, 0].tolist() == [3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6]


def test_frames_depend_on_earlier_ones_only():
    model, lq = build(), random(1, 3, 6, 16, 32)
    changed = lq.clone()
    changed[:, 1] = random(1, 6, 16, 32, seed=1)
    with torch.inference_mode():
        one, other = model(lq), model(changed)
    assert torch.equal(one[:, 0], other[:, 0])
    assert (one[:, 2] - other[:, 2]).abs().max() > 1e-9


def test_a_video_frame_by_frame_is_the_sequence():
    model, lq = build(), random(2, 3, 6, 20, 27)
    with torch.inference_mode():
        together, state = model(lq), None
        for t in range(3):
            image, state = model.restore_sequence(lq[:, t:t + 1], state)
            torch.testing.assert_close(image[:, 0], together[:, t])
        torch.testing.assert_close(model(lq[:, 0]), together[:, 0])


def test_colours_enter_and_leave_as_bgr():
    model, lq = build(radial=False), random(1, 6, 16, 16)
    with torch.inference_mode():
        inside = model.run(torch.cat([lq[:, :3].flip(1), lq[:, 3:].flip(1)], 1)[:, None])[0][:, 0]
        torch.testing.assert_close(model(lq), inside.flip(1))


def test_a_crop_sees_its_place_in_the_frame():
    model, frame = build(), random(1, 1, 6, 48, 64)
    window = torch.tensor([[16, 32, 48, 64]])
    whole = model.with_radial(frame)[..., 16:32, 32:48]
    torch.testing.assert_close(model.with_radial(frame[..., 16:32, 32:48], window), whole)
    crop = frame[:, 0, :, 16:32, 32:48]
    with torch.inference_mode():
        placed = model.training_outputs({"lq": crop, "window": window})["restored"]
        assert (placed - model(crop)).abs().max() > 1e-9
    with pytest.raises(SizeError, match="window: expected"):
        model(crop, window=window[0])


@pytest.mark.parametrize("arguments", [{"width": 0}, {"dropout": 1.0}, {"output": "tanh"}])
def test_impossible_settings_are_reported(arguments):
    with pytest.raises(OptionError, match="RDPD"):
        RDPD(**{"width": 2, **arguments})
    with pytest.raises(SizeError, match="B, T, 6, H, W"):
        build().restore_sequence(random(1, 6, 16, 16))


@pytest.mark.parametrize("radial", [False, True])
def test_keras_files_are_recognised_and_converted(radial):
    known, model = official_format("rdpd"), build(radial=radial)
    official = known.to_official(model.state_dict())
    # Later Keras numbers and names layers otherwise; the order is what counts.
    official = {k.replace("conv_lst_m2d", "conv_lstm2d"): v for k, v in official.items()}
    network, settings = known.recognise({k: v.shape for k, v in official.items()})
    assert (network, settings["in_channels"]) == ("rdpd", 7 if radial else 6)
    other = known.build(settings, network).double()
    known.load(other, official, network)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())
    assert official["time_distributed_14/kernel:0"].shape == (2, 2, 32, 16)


def test_keras_files_out_of_order_are_refused():
    known, model = official_format("rdpd"), build()
    official = dict(reversed(known.to_official(model.state_dict()).items()))
    with pytest.raises(CheckpointError, match="in Keras's order"):
        known.convert(official, "rdpd")
    assert known.recognise({"head.0.weight": (64, 6, 3, 3)}) is None
