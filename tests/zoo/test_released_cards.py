"""Cards of released weights that are damaged: one clear error each, whatever is wrong in them."""
import json

import pytest

from k3dn_plugin.errors import CheckpointError
from k3dn_plugin.zoo.released import released_page, released_weights


@pytest.mark.parametrize("card", [
    [], 5, None, {"parameters": "many"}, {"parameters": [1]}, {"scores": 5}, {"scores": [5]}, {"scores": [{}]},
    {"scores": [{"means": {}}]}, {"scores": [{"means": {"psnr": None}, "data": "a", "images": 1, "protocol": "p"}]},
    {"scores": [{"means": {"psnr": "x"}, "data": "a", "images": 1, "protocol": "p"}]}, {"scores": None},
    {"parameters": "12"}, {"parameters": float("inf")}, {"parameters": True}, {"restorer": ["K3DN"]}, {"license": 5},
    {"scores": [{"means": {"psnr": float("nan")}, "data": "a", "images": 1, "protocol": "p"}]},
    {"scores": [{"means": {"psnr": 1.0, "mae": [1]}, "data": "a", "images": 1, "protocol": "p"}]},
    {"scores": [{"means": {"psnr": 1.0}, "data": "a", "images": "1", "protocol": "p"}]},
    {"scores": [{"means": {"psnr": 1.0}, "data": None, "images": 1, "protocol": "p"}]}], ids=repr)
def test_a_card_of_wrong_types_is_told_by_its_file(tmp_path, card):
    (tmp_path / "mine.safetensors").write_bytes(b"x")
    (tmp_path / "mine.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="mine.json"):
        released_page(released_weights(tmp_path))
