"""Blur maps: what all are asked, and what each says of its source."""
import cv2
import numpy as np
import pytest
import torch

from k3dn_plugin.archs.ldp_arch import LDP
from k3dn_plugin.data import StoreWriter
from k3dn_plugin.errors import DataError, OptionError
from k3dn_plugin.evaluation.evaluate import evaluate
from k3dn_plugin.inference.frames import FrameRestorer
from k3dn_plugin.inference.settings import InferenceSettings
from k3dn_plugin.modules.blur_map.stretch import stretched
from k3dn_plugin.registry import DATASETS, MODULES

NAMES = [n for n in MODULES.names() if MODULES.get(n).__module__.startswith("k3dn_plugin.modules.blur_map.")]
SMALL = {"DisparityBlurMap": {"vector_size": 4, "disparity": {"type": "CostVolumeDisparity", "pools": [6, 3]}},
         "CoCBlurMap": {"width": 8, "blocks": [1], "reduction": 2}}


@pytest.fixture
def build(tmp_path):
    def built(name, **settings):
        torch.manual_seed(0)
        if name == "FileBlurMap" and not settings:
            cv2.imwrite(str(tmp_path / "map.png"), np.array([[0, 51, 255], [255, 102, 0]], np.uint8))
            settings = {"path": str(tmp_path / "map.png")}
        return MODULES.build({"type": name, **SMALL.get(name, {}), **settings}).eval()
    return built


def pair(height=97, width=110, batch=2):
    return torch.rand(batch, 6, height, width, generator=torch.Generator().manual_seed(3))


def test_the_sources_of_a_map_are_here():
    assert {"DisparityBlurMap", "CoCBlurMap", "FileBlurMap"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
class TestEveryBlurMap:
    @pytest.mark.parametrize("size", [(97, 110), (5, 7), (96, 96)])
    def test_a_value_for_each_pixel_stretched_over_the_image(self, build, name, size):
        with torch.no_grad():
            found = build(name)(pair(*size))
        assert found.shape == (2, 1, *size)
        for one in found:
            assert one.min() == 0 and (one.max() == 1 or (size == (5, 7) and name == "DisparityBlurMap"))

    def test_images_do_not_mix(self, build, name):
        module, lq = build(name), pair()
        with torch.no_grad():
            torch.testing.assert_close(module(lq)[1:], module(lq[1:]), rtol=1e-3, atol=1e-4)

    def test_gradients_reach_all_of_it(self, build, name):
        module = build(name)
        if not list(module.parameters()):
            pytest.skip("it has nothing to train")
        (module(pair()) * torch.rand(2, 1, 97, 110)).sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())

    def test_ldp_trains_with_it(self, build, name):
        settings = {} if name == "FileBlurMap" else SMALL[name]
        model = LDP(**{**LDP.tiny_arguments, "blur_map": {"type": name, **settings}})
        batch = {"lq": pair(64, 64), "gt": torch.rand(2, 3, 64, 64), "defocus": torch.randn(2, 1, 64, 64)}
        prediction = model.training_outputs(batch)
        assert prediction["blur_map"].shape == (2, 1, 64, 64)
        prediction["restored"].mean().backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in trained) and any(p.grad.abs().sum() > 0 for p in trained)


def test_stretching():
    blur = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[4.0, 4.0], [4.0, 4.0]]], requires_grad=True)
    assert stretched(blur).tolist() == [[[0, 0.5], [0.25, 1]], [[0, 0], [0, 0]]]
    stretched(blur).sum().backward()
    assert blur.grad.isfinite().all()


def test_the_sign_of_the_disparity_does_not_matter(build):
    module, lq = build("DisparityBlurMap"), pair()
    with torch.no_grad():
        once = module(lq)
        for parameter in module.head.parameters():
            parameter.neg_()
        torch.testing.assert_close(module(lq), once)
    window = once[0, 0, :48, :48]
    assert (window == window[0, 0]).all() and once[0].unique().numel() > 2


def test_the_coc_network_reads_blue_first_and_its_largest_magnitude_counts(build):
    module, lq = build("CoCBlurMap"), pair(32, 32, 1)
    with torch.no_grad():
        bgr = lq[:, [2, 1, 0, 5, 4, 3]]
        torch.testing.assert_close(module(lq), stretched(module.network(bgr).abs().max(1, keepdim=True)[0]))


def test_a_file_is_enlarged_by_its_nearest_pixels(build):
    found = build("FileBlurMap")(pair(4, 6, 2))
    wanted = torch.tensor([[0, 0.2, 1], [1, 0.4, 0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(found, wanted.expand(2, 1, 4, 6))


def test_files_of_other_kinds(build, tmp_path):
    values = np.array([[0, 13107, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    np.save(tmp_path / "signed.npy", np.array([[-4.0, 0.0, 1.0]]))
    lq = pair(1, 3, 1)
    assert build("FileBlurMap", path=str(tmp_path / "deep.png"))(lq).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert build("FileBlurMap", path=str(tmp_path / "signed.npy"))(lq).flatten().tolist() == [1, 0, 0.25]
    assert build("FileBlurMap", path=str(tmp_path / "deep.png"), inverted=True)(lq).flatten().tolist() == (
        pytest.approx([1, 0.8, 0]))


def test_the_maps_of_samples(build, tmp_path):
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps" / "one.npy", np.array([[0.0, 2.0]]))
    folder = build("FileBlurMap", path=str(tmp_path / "maps"))
    assert folder.of_sample({"name": "one"}).tolist() == [[[0, 1]]]
    with pytest.raises(DataError, match="no blur map of two; expected two.png or two.npy"):
        folder.of_sample({"name": "two"})
    with pytest.raises(DataError, match="no name"):
        folder.of_sample({})
    with pytest.raises(OptionError, match="do not follow the crops"):
        folder.of_batch({"defocus": torch.zeros(1, 1, 2, 2)})
    data = MODULES.build({"type": "FileBlurMap"})
    assert data.of_sample({"defocus": torch.tensor([[[-2.0, 0.0, 1.0]]])}).tolist() == [[[1, 0, 0.5]]]
    with pytest.raises(DataError, match=r"has no `defocus` \(it has lq, name\)"):
        data.of_sample({"name": "a", "lq": None})
    with pytest.raises(OptionError, match="without its name"):
        data(pair())


@pytest.mark.parametrize("spoil, message", [
    (lambda path: path.unlink(), "no file"), (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cut off"),
    (lambda path: path.write_bytes(b"not an image"), "not an image"),
    (lambda path: path.write_bytes(b""), "not an image")])
def test_files_that_are_missing_or_damaged(build, tmp_path, spoil, message):
    module = build("FileBlurMap")
    spoil(tmp_path / "map.png")
    with pytest.raises((DataError, OptionError), match=message):
        module(pair())


def test_arrays_that_are_no_map(build, tmp_path):
    np.save(tmp_path / "map.npy", np.array([[0.0, np.nan]]))
    with pytest.raises(DataError, match="finite"):
        build("FileBlurMap", path=str(tmp_path / "map.npy"))(pair())


class TestWholeFrames:
    """The map goes with its frame: resized to it, cut into tiles with it, mirrored with it."""

    def setup_restorer(self, **settings):
        torch.manual_seed(0)
        tiny = {**LDP.tiny_arguments, "blur_map": {"type": "FileBlurMap", **settings}}
        return LDP(**tiny).eval()

    def test_a_samples_map_is_used(self):
        restorer, lq = self.setup_restorer(), pair(40, 48, 1)
        sample = {"lq": lq[0], "defocus": torch.randn(1, 20, 24), "name": "a"}
        run = FrameRestorer(restorer)
        found = run(lq, maps=run.maps_of(sample)).image
        wanted = stretched(sample["defocus"].abs())[None].repeat_interleave(2, 2).repeat_interleave(2, 3)
        with torch.inference_mode():
            torch.testing.assert_close(found, restorer(lq, blur_map=wanted))
            assert not torch.allclose(found, restorer(lq, blur_map=torch.zeros_like(wanted)), atol=1e-5)
        with pytest.raises(DataError, match="no `defocus`"):
            run(lq)

    def test_mirrored_as_the_frame_is(self, tmp_path):
        values = np.random.default_rng(0).random((40, 48)).astype(np.float32)
        np.save(tmp_path / "map.npy", values)
        restorer, lq = self.setup_restorer(path=str(tmp_path / "map.npy")), pair(40, 48, 1)
        seen = []
        restorer.guided = lambda views, blur: seen.append((views, blur)) or views[:, :3]
        FrameRestorer(restorer, InferenceSettings(self_ensemble=True))(lq)
        assert len(seen) == 4
        flips = [(), (3,), (2,), (2, 3)]
        for (_, blur), axes in zip(seen, flips):
            torch.testing.assert_close(blur, stretched(torch.from_numpy(values))[None, None].flip(axes))

    def test_scores_are_those_of_the_samples_map(self, tmp_path):
        with StoreWriter(tmp_path / "maps.lmdb", dataset="maps", facts={"bit_depth": 16}) as writer:
            draw = np.random.default_rng(0)
            views = {view: draw.integers(0, 65535, (40, 48, 3)).astype(np.uint16)
                     for view in ("left", "right", "sharp")}
            writer.add("a", {**views, "defocus": draw.normal(size=(40, 48)).astype(np.float32)}, tags={})
            writer.finish()
        restorer, data = self.setup_restorer(), DATASETS.build(
            {"type": "DualPixelDataset", "store": str(tmp_path / "maps.lmdb")})
        found = evaluate(restorer, data, "dpdd16", progress=False, diagnostics=["view_swap"]).rows[0].scores
        sample = data[0]
        with torch.inference_mode():
            restored = restorer(sample["lq"][None], blur_map=stretched(sample["defocus"].abs())[None])[0].clamp(0, 1)
        assert found["mae"] == pytest.approx((restored - sample["gt"]).abs().mean().item(), abs=1e-6)

    def test_other_files_are_another_identity(self, tmp_path):
        (tmp_path / "maps").mkdir()
        hashes = set()
        for value in (1.0, 2.0):
            np.save(tmp_path / "maps" / "a.npy", np.array([[0.0, value]]))
            hashes.add(self.setup_restorer(path=str(tmp_path / "maps")).maps_hash())
            hashes.add(self.setup_restorer(path=str(tmp_path / "maps" / "a.npy")).maps_hash())
        assert len(hashes) >= 2 and "" not in hashes
        assert self.setup_restorer().maps_hash() == "" == LDP(**LDP.tiny_arguments).maps_hash()

    def test_cut_as_the_frame_is(self, tmp_path):
        np.save(tmp_path / "map.npy", np.arange(64.0 * 64).reshape(64, 64))
        restorer, lq = self.setup_restorer(path=str(tmp_path / "map.npy")), pair(64, 64, 1)
        seen = []
        restorer.guided = lambda views, blur: seen.append((views.shape[-2:], blur)) or views[:, :3]
        FrameRestorer(restorer, InferenceSettings(tile=32))(lq)
        assert len(seen) > 1 and all(blur.shape[-2:] == size for size, blur in seen)
        assert len({blur.min().item() for _, blur in seen}) > 1
