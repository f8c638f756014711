"""Before and after: upright, the same size for both, on a picture and on a page that works without a network."""
import base64
import json
import re

import numpy as np
import pytest
import torch
from browser import browse, needs_browser
from PIL import Image

from k3dn_plugin.data.images import read_image
from k3dn_plugin.inference.before_after import most_changed, reduced, upright, write_page, write_preview

BLANK = np.full((40, 60, 3), 90, np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_other_programs_show_them(orientation, tmp_path):
    from PIL import ImageOps
    array = np.random.default_rng(orientation).integers(0, 256, (4, 7, 3), np.uint8)
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    tensor = torch.from_numpy(array / 255).permute(2, 0, 1)[None]
    assert np.array_equal(upright(tensor, orientation=orientation), expected)
    assert np.array_equal(upright(tensor, quarter_turns=3), np.rot90(array, 3))


def test_the_window_that_changed_most():
    after = BLANK.copy()
    after[20:30, 40:50] += 50
    rows, columns = most_changed(BLANK, after, side=10)
    assert (rows, columns) == (slice(20, 30), slice(40, 50))
    assert most_changed(BLANK, after, side=500) == (slice(0, 40), slice(0, 60))


def test_the_preview_shows_both_and_a_detail(tmp_path):
    before, after = np.zeros((600, 1800, 3), np.uint8), np.full((600, 1800, 3), 200, np.uint8)
    write_preview(tmp_path / "p.jpg", before, after)
    shown = read_image(tmp_path / "p.jpg")
    assert shown.shape[1] == 2 * 900 + 6 and shown.shape[0] > 300 + 300
    assert shown[200, 450].max() < 10 and abs(int(shown[200, 1350, 0]) - 200) < 6   # before, after
    assert reduced(before, 900).shape == (300, 900, 3)


def test_a_page_needs_nothing_else(tmp_path):
    write_page(tmp_path / "p.html", BLANK, BLANK // 2, title="<b>a & b", facts={"size": "60 x 40 <i>"})
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;a &amp; b" in page and "60 x 40 &lt;i&gt;" in page and "<b>a" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|https?://|@import|fetch\(""", page)
    assert page.count("data:image/jpeg;base64,") == 2


@pytest.mark.parametrize("space", [b"RGB ", b"GRAY"])
def test_only_a_profile_of_colors_goes_with_them(space, tmp_path):
    profile = bytes(16) + space + bytes(280)
    write_preview(tmp_path / "p.jpg", BLANK, BLANK, profile=profile)
    write_page(tmp_path / "p.html", BLANK, BLANK, title="t", facts={}, profile=profile)
    pictures = re.findall("base64,([A-Za-z0-9+/=]+)", (tmp_path / "p.html").read_text(encoding="utf-8"))
    assert len(pictures) == 2
    for data in ((tmp_path / "p.jpg").read_bytes(), *map(base64.b64decode, pictures)):
        assert (b"ICC_PROFILE" in data) == (space == b"RGB ")


def test_large_pictures_are_reduced_on_the_page(tmp_path):
    wide = np.zeros((20, 3000, 3), np.uint8)
    write_page(tmp_path / "p.html", wide, wide, title="t", facts={})
    assert "reduced to 2560 x 17 pixels" in (tmp_path / "p.html").read_text(encoding="utf-8")


ACTIONS = """<script>
const found = {errors: []};
addEventListener("error", event => found.errors.push(event.message));
addEventListener("load", () => setTimeout(() => {
  const [cut, view] = ["cut", "view"].map(id => document.getElementById(id));
  const shown = () => view.style.getPropertyValue("--cut");
  const press = (key, at) => at.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  found.start = shown();
  cut.value = 80; cut.dispatchEvent(new Event("input")); found.slider = shown();
  press("ArrowLeft", document.body); found.key = shown();
  const box = view.getBoundingClientRect();
  view.dispatchEvent(new PointerEvent("pointermove", {buttons: 1, clientX: box.left + box.width / 4}));
  found.pointer = shown();
  const fit = box.width;
  press("+", document.body); found.larger = view.getBoundingClientRect().width / fit;
  press("0", document.body); found.again = view.getBoundingClientRect().width / fit;
  document.getElementById("in").click(); found.button = view.getBoundingClientRect().width / fit;
  found.sizes = [...document.images].map(image => [image.naturalWidth, image.naturalHeight]);
  found.clip = getComputedStyle(document.getElementById("after")).clipPath;
  cut.focus(); found.focused = document.activeElement.id;
  const out = document.createElement("pre");
  out.id = "found"; out.textContent = JSON.stringify(found); document.body.append(out);
}, 300));
</script>"""


@needs_browser
def test_the_page_in_a_browser(tmp_path):
    write_page(tmp_path / "p.html", BLANK, BLANK // 2, title="t", facts={})
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    (tmp_path / "acted.html").write_text(text.replace("<title>", ACTIONS + "<title>", 1), encoding="utf-8")
    dom = browse("--virtual-time-budget=4000", "--dump-dom", (tmp_path / "acted.html").as_uri(),
                 profile=tmp_path / "profile").stdout
    found = json.loads(re.search(r'<pre id="found">(.*?)</pre>', dom, re.S)[1])
    assert found["errors"] == [] and found["sizes"] == [[60, 40], [60, 40]]
    assert (found["start"], found["slider"], found["key"], found["pointer"]) == ("50%", "80%", "79%", "25%")
    assert found["larger"] == pytest.approx(1.5) and found["again"] == 1 and found["button"] == pytest.approx(1.5)
    assert "25%" in found["clip"] and found["focused"] == "cut"
