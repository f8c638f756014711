"""LDP beyond what every restorer is asked: its attention, its map, its files."""
import pytest
import torch
import torch.nn.functional as F

from k3dn_plugin.archs.ldp_arch import LDP, BlurPriorAttention
from k3dn_plugin.errors import CheckpointError, OptionError, SizeError
from k3dn_plugin.evaluation.cost import count_macs
from k3dn_plugin.zoo.formats.base import official_format

PUBLISHED = {"inp_channels": 6, "out_channels": 3, "bias": False, "width": 32, "heads": 1, "mask_grid": [32, 32],
             "enc_blk_nums": [2, 2, 2, 2], "middle_blk_num": 2, "dec_blk_nums": [2, 2, 2, 2], "local_pooling": False}
SMALL = {"width": 8, "mask_grid": [8, 8], "enc_blk_nums": [1, 2], "middle_blk_num": 1, "dec_blk_nums": [2, 1]}


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(**arguments):
    torch.manual_seed(0)
    return LDP(**{**LDP.tiny_arguments, "blur_map": None, **arguments}).double().eval()


def test_size_and_cost_of_the_released_network():
    with torch.device("meta"):
        model = LDP()
    assert sum(p.numel() for p in model.parameters()) == 7_624_961
    assert sum(p.numel() for p in model.parameters() if not p.requires_grad) == 864
    assert len(model.state_dict()) == 347
    assert count_macs(model) == 300_228_968_448
    assert count_macs(model, (256, 256)) == 10_457_796_608


def test_attention_by_its_formula():
    torch.manual_seed(0)
    layer = BlurPriorAttention(6, 2).double()
    x, blur = random(2, 6, 7, 5), random(2, 1, 7, 5, seed=1)
    with torch.no_grad():
        layer.temperature.copy_(torch.tensor([2.0, 0.5]).view(2, 1, 1))
        found = layer(x, blur)
        q, k, v = layer.qkv(x).flatten(2).chunk(3, 1)
        # Cell (r, c): the mean of rows floor(7 r / 3) to ceil(7 (r + 1) / 3) - 1, and of columns likewise.
        rows, columns = ((0, 3), (2, 5), (4, 7)), ((0, 2), (1, 4), (3, 5))
        picture = torch.stack([torch.stack([blur[:, 0, a:b, c:d].mean((1, 2)) for c, d in columns], -1)
                               for a, b in rows], -2)
        heads = []
        for head, temperature in enumerate((2.0, 0.5)):
            of = slice(3 * head, 3 * head + 3)
            logits = temperature * F.normalize(q[:, of], dim=-1) @ F.normalize(k[:, of], dim=-1).transpose(1, 2)
            heads.append((logits + picture).softmax(-1) @ v[:, of])
        torch.testing.assert_close(found, layer.project_out(torch.cat(heads, 1).view_as(x)))


def test_a_constant_map_says_nothing_and_no_map_is_one():
    model, lq = build(), random(1, 6, 24, 40)
    blur = random(1, 1, 24, 40, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(model(lq), model(lq, blur_map=torch.full_like(blur, 0.7)))
        assert not torch.allclose(model(lq), model(lq, blur_map=blur), atol=1e-4)


def test_small_maps_are_enlarged_and_others_refused():
    model, lq, blur = build(), random(2, 6, 24, 40), random(2, 1, 3, 5, seed=1)
    with torch.inference_mode():
        whole = blur.repeat_interleave(8, 2).repeat_interleave(8, 3)
        assert torch.equal(model(lq, blur_map=blur), model(lq, blur_map=whole))
    for wrong in (blur[:1], blur[:, 0], blur.expand(2, 3, 3, 5)):
        with pytest.raises(SizeError, match=r"blur_map: expected \(2, 1, h, w\)"):
            model(lq, blur_map=wrong)


def test_what_training_shows_of_the_map():
    batch = {"lq": random(1, 6, 32, 32), "gt": random(1, 3, 32, 32)}
    assert set(build().training_outputs(batch)) == {"restored"}
    assert set(build(blur_map=LDP.tiny_arguments["blur_map"]).training_outputs(batch)) == {"restored", "blur_map"}


@pytest.mark.parametrize("changes", [{}, {"bias": True}, {"heads": 2, "mask_grid": [4, 4]}])
def test_official_files_are_recognised_and_converted(changes):
    known, settings = official_format("ldp"), {**PUBLISHED, **SMALL, **changes}
    model = known.build(settings, "ldp").double()
    official = {k: v.numpy() for k, v in known.to_official(model.state_dict()).items()}
    assert {"patch_embed.proj.weight", "ca.qkv_dwconv.weight", "naf.encoders.1.0.sca.1.weight", "naf.ups.0.0.weight",
            "naf.middle_blks.0.beta", "skip_conv.weight", "output.weight"} <= set(official)
    found, read = known.recognise({k: v.shape for k, v in official.items()})
    assert found == "ldp" and read == settings
    other = known.build(read, found).double()
    known.load(other, official, found)
    inputs = {"left": random(1, 3, 20, 24), "right": random(1, 3, 20, 24, seed=1), "blur_map": random(1, 1, 20, 24)}
    with torch.inference_mode():
        again, once = (known.outputs(one, inputs, "ldp")["restored"] for one in (other, model))
    assert torch.equal(again, once)


def test_a_map_of_its_own_is_not_written_into_an_official_file():
    known = official_format("ldp")
    plain, guided = build(), build(blur_map=LDP.tiny_arguments["blur_map"])
    assert known.to_official(guided.state_dict()).keys() == known.to_official(plain.state_dict()).keys()


def test_networks_that_are_not_this_one_are_reported():
    known = official_format("ldp")
    assert known.recognise({"patch_embed.proj.weight": (48, 3, 3, 3)}) is None
    for changes, message in (({"inp_channels": 3}, "3 channels in"), ({"local_pooling": True}, "pools globally"),
                             ({"mask_grid": [16, 16]}, "the 32 channels of a head")):
        with pytest.raises(CheckpointError, match=message):
            known.build({**PUBLISHED, **changes}, "ldp")


@pytest.mark.parametrize("arguments, message", [
    ({"heads": 3}, "divisor of the 8"), ({"encoder_blocks": [1]}, "same levels"), ({"middle_blocks": -1}, "below 0")])
def test_impossible_settings_are_reported(arguments, message):
    with pytest.raises(OptionError, match=message):
        build(**arguments)
