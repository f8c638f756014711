"""What every restorer has, and the one adapter between a batch and a network."""
import pytest
import torch

from k3dn_plugin.archs.base import Restorer
from k3dn_plugin.archs.card import RestorerCard, SizeRule
from k3dn_plugin.errors import ComponentError, K3DNError, SizeError
from k3dn_plugin.registry import ARCHS

FACTS = {"title": "a test", "paper": "none", "year": 2026, "venue": "none", "official_license": "none"}


@ARCHS.register_module()
class WithoutRestore(Restorer):
    card = RestorerCard(**FACTS)

    def __init__(self, *, width: int = 4):
        raise AssertionError("the constructor is not reached")


class WithoutCard(Restorer):
    def restore(self, views):
        return views


class Bgr(Restorer):
    card = RestorerCard(**FACTS, views=("center", "right"), channel_order="bgr", value_range=(-1.0, 1.0),
                        size_rule=SizeRule((8, 16), (32, 1)))

    def restore(self, views):
        return views[:, :3]


def test_a_restorer_without_restore_or_card_cannot_be_built():
    for build in (WithoutRestore, lambda: ARCHS.build({"type": "WithoutRestore", "width": 5})):
        with pytest.raises(ComponentError, match="WithoutRestore is a restorer without `restore`.*restore.views."):
            build()
    with pytest.raises(TypeError, match="WithoutCard is a restorer without `card`"):
        WithoutCard()
    with pytest.raises(K3DNError, match="without `restore`"):
        Restorer()


@pytest.mark.parametrize("size, padded", [((32, 16), (32, 16)), ((3, 1), (32, 16)), ((33, 50), (40, 64))])
def test_prepared_pads_orders_and_scales(size, padded):
    lq, center = torch.rand(2, 6, *size), torch.rand(2, 3, *size)
    views, crop = Bgr().prepared({"lq": lq, "center": center})
    assert views.shape == (2, 6, *padded) and crop(views).shape == (2, 6, *size)
    torch.testing.assert_close(crop(views), torch.cat([center.flip(1), lq[:, 3:].flip(1)], 1) * 2 - 1)
    # By reflection that does not repeat the edge.
    if padded[1] > size[1] > 1:
        assert torch.equal(views[..., size[1]], views[..., size[1] - 2])
    torch.testing.assert_close(Bgr()(lq, center), center)


def test_prepared_takes_the_mean_for_a_missing_center_and_another_rule():
    lq = torch.rand(1, 6, 32, 16)
    for batch in ({"lq": lq}, {"lq": lq, "center": None}):
        views, _ = Bgr().prepared(batch)
        torch.testing.assert_close(views[:, :3], (lq[:, :3] + lq[:, 3:]).flip(1) - 1)
    assert Bgr().prepared({"lq": lq}, rule=SizeRule((1, 5)))[0].shape[-2:] == (32, 20)
    with pytest.raises(SizeError, match="lq: expected"):
        Bgr().prepared({"lq": lq[:, :3]})
    with pytest.raises(SizeError, match="center: expected"):
        Bgr().prepared({"lq": lq, "center": lq})
