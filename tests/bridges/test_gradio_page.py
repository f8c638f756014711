"""The page of `k3dn app` in a headless Chromium: drop, restore, slider, zoom, download, errors; no other address."""
import re
from functools import partial

import numpy as np
import pytest
import torch
from browser import BROWSER, needs_browser

from k3dn_plugin.archs.k3dn_arch import K3DN
from k3dn_plugin.commands import main
from k3dn_plugin.data.images import read_image, write_image
from k3dn_plugin.errors import DataError
from k3dn_plugin.zoo.load import load_restorer
from k3dn_plugin.zoo.weights import save_weights

SECONDS = 1000
NETWORK = {"type": "K3DN", **K3DN.tiny_arguments}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, K3DN(**K3DN.tiny_arguments), network_g=NETWORK, provenance={})
    return path


@pytest.fixture(scope="module")
def served(weights):
    """Address of the page, and a browser."""
    pytest.importorskip("gradio", reason="the extra [app] is not installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="nothing drives the browser: pip install playwright")
    from k3dn_plugin.bridges.gradio_page import served_page
    with served_page(weights=[str(weights)], load=partial(load_restorer, device="cpu", tile=96)) as address, \
            sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-quic"])
        yield address, browser
        browser.close()


@pytest.fixture
def page(served):
    """The page, freshly opened; at the end, nothing may have gone wrong in it."""
    address, browser = served
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(120 * SECONDS)
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:"))
            else wrong.append(request.url))
    page.goto(address)
    page.wait_for_selector("#restore")
    yield page
    page.close()
    assert wrong == []


def drop(page, *files):
    page.set_input_files("#files input[type=file]", [str(file) for file in files])
    page.wait_for_function("count => document.querySelectorAll('#files .file').length === count", arg=len(files))
    page.click("#restore")


@pytest.fixture
def views(tmp_path):
    for seed, name in enumerate("LR"):
        write_image(tmp_path / f"shot_{name}.png", np.random.default_rng(seed).integers(0, 65536, (130, 180, 3),
                                                                                        dtype=np.uint16))
    return tmp_path / "shot_L.png", tmp_path / "shot_R.png"


@pytest.mark.slow
@needs_browser
def test_from_two_views_to_the_restored_picture(page, views, weights, tmp_path):
    drop(page, *views)
    page.wait_for_function("document.querySelector('#facts').innerText.includes('180 x 130 pixels')")
    assert "tiles of" in page.inner_text("#facts") and "tiny (K3DN)" in page.inner_text("#facts")
    page.wait_for_function("[...document.querySelectorAll('#slider img')].every(i => i.naturalWidth === 180)")
    # The line follows the pointer, and the wheel zooms.
    cut = "() => document.querySelectorAll('#slider img')[1].style.clipPath"
    before, handle = page.evaluate(cut), page.locator("#slider .handle-wrap, #slider .outer").first.bounding_box()
    at = (handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(at[0] + 120, at[1], steps=4)
    page.mouse.up()
    page.wait_for_function(f"before => ({cut})() !== before", arg=before)
    picture = page.locator("#slider img").first.bounding_box()
    page.mouse.move(picture["x"] + 40, picture["y"] + 60)
    page.mouse.wheel(0, -300)
    page.wait_for_function("!document.querySelector('#slider img').style.transform.includes('scale(1)')")
    page.wait_for_selector("#map img")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "shot_restored.png"
    download.value.save_as(tmp_path / "result.png")
    found = read_image(tmp_path / "result.png", bits=16)
    expected = load_restorer(weights, device="cpu", tile=96).restore(*map(read_image, views))
    assert np.abs(found.astype(int) - expected).max() <= 1
    with page.expect_download() as download:
        page.click("#html")
    assert download.value.suggested_filename == "shot.html"


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("broken, words", [
    ("one", "one file, and no raw file that holds both views"), ("damaged", "shot_R.png: "),
    ("sizes", "the views differ in size: shot_L.png has 180 x 130 pixels, shot_R.png has 60 x 40 pixels")])
def test_bad_files_give_the_same_line_as_elsewhere(page, views, broken, words):
    if broken == "damaged":
        views[1].write_bytes(views[1].read_bytes()[:900])
    if broken == "sizes":
        write_image(views[1], np.zeros((40, 60, 3), np.uint16))
    drop(page, *views[:1 if broken == "one" else 2])
    message = page.wait_for_selector(".toast-body").inner_text()
    assert words in message and "/k3dn_app" not in message and "Traceback" not in message


@pytest.mark.slow
@needs_browser
def test_only_this_machine_is_answered_and_nothing_is_kept(served, views):
    import urllib.error
    import urllib.request
    address, _ = served
    assert re.match(r"http://127\.0\.0\.1:\d+/", address)
    with urllib.request.urlopen(address) as answer:
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "elsewhere.example"}))


def test_files_of_one_name_are_refused_and_left_as_they_are(tmp_path):
    from k3dn_plugin.bridges.gradio_page import beside_each_other
    for number, name in enumerate(("1/a.png", "2/a.png", "2/b.png")):
        write_image(tmp_path / name, np.full((2, 2, 3), number, np.uint8))
    first = beside_each_other(tmp_path / "1" / "a.png", tmp_path / "views")
    for again in ("1/a.png", "2/a.png"):
        with pytest.raises(DataError, match="two files are named a.png: .*rename them NAME_L and NAME_R"):
            beside_each_other(tmp_path / again, tmp_path / "views")
    assert read_image(first).max() == read_image(tmp_path / "1" / "a.png").max() == 0
    assert read_image(beside_each_other(tmp_path / "2" / "b.png", tmp_path / "views")).max() == 2


def test_what_is_missing_is_said(monkeypatch, capsys, weights, tmp_path):
    import sys
    monkeypatch.setitem(sys.modules, "gradio", None)
    for source in (str(weights), "center"):
        assert main(["app", "--weights", source]) == 2
        assert "pip install 'k3dn_plugin[app]'" in capsys.readouterr().err
    assert main(["app", "--weights", str(tmp_path / "nowhere.safetensors")]) == 2
    assert "no weights file at" in capsys.readouterr().err
    (tmp_path / "damaged.safetensors").write_bytes(weights.read_bytes()[:2000])
    assert main(["app", "--weights", str(tmp_path / "damaged.safetensors")]) == 2
    assert "damaged" in capsys.readouterr().err
