"""Every registered module of a kind answers the same questions; new ones are found here without an edit."""
import pytest
import torch

from k3dn_plugin.errors import OptionError, SizeError
from k3dn_plugin.modules.disparity.feature import DisparityFeature
from k3dn_plugin.modules.reblur.guidance import ReblurGuidance
from k3dn_plugin.registry import ARCHS, MODULES

WINDOW = (6, 10)


def of_folder(folder):
    return [n for n in MODULES.names() if MODULES.get(n).__module__.startswith(f"k3dn_plugin.modules.{folder}.")]


def build(name, **given):
    torch.manual_seed(0)
    extra = {"pools": [6, 3]} if name == "CostVolumeDisparity" else {}
    return MODULES.build({"type": name, **extra}, **given).eval()


@pytest.mark.parametrize("name", of_folder("disparity"))
class TestDisparity:
    def test_one_vector_per_window(self, name):
        module = build(name, vector_size=12, window=WINDOW)
        feature = module(torch.rand(2, 3, 96, 240) - 0.5, torch.rand(2, 3, 96, 240) - 0.5)
        assert feature.grid == (2, 3)
        assert feature.vectors.shape == (2 * 2 * 3, 12)
        assert feature.as_map().shape == (2, 12, 2, 3)

    def test_windows_that_pool_unevenly_are_refused(self, name):
        with pytest.raises(OptionError, match="2 modulo 4"):
            build(name, vector_size=12, window=(8, 6))

    def test_sizes_that_cannot_be_cut_are_refused(self, name):
        module = build(name, vector_size=12, window=(18, 14))
        with pytest.raises(SizeError, match="multiple of 144 x 112"):
            module(torch.rand(1, 3, 296, 336), torch.rand(1, 3, 296, 336))

    def test_views_are_distinguished(self, name):
        module = build(name, vector_size=12, window=WINDOW)
        left, right = torch.rand(1, 3, 96, 80), torch.rand(1, 3, 96, 80)
        with torch.no_grad():
            assert not torch.allclose(module(left, right).vectors, module(right, left).vectors)


@pytest.mark.parametrize("name", of_folder("deblur"))
class TestDeblur:
    def setup_module_and_data(self, name, dtype=torch.float32):
        module = build(name, channels=8, vector_size=12).to(dtype)
        generator = torch.Generator().manual_seed(0)
        features = torch.rand(2, 8, 12, 20, generator=generator).to(dtype)
        vectors = torch.randn(2 * 2 * 2, 12, generator=generator).to(dtype)
        return module, features, DisparityFeature(vectors, (2, 2))

    def test_shape_is_kept_both_ways(self, name):
        module, features, disparity = self.setup_module_and_data(name)
        assert module(features, disparity).shape == features.shape
        if module.reversible:
            assert module.reverse(features, disparity).shape == features.shape

    def test_what_says_that_it_runs_backwards_does(self, name):
        module, features, disparity = self.setup_module_and_data(name)
        assert module.reversible == hasattr(module, "reverse")
        if not module.reversible:
            return
        other = DisparityFeature(disparity.vectors + torch.arange(12) % 2, disparity.grid)
        with torch.no_grad():
            backwards = module.reverse(features, disparity)
            assert not torch.allclose(backwards, module(features, disparity)), "backwards is not forwards"
            assert not torch.allclose(backwards, module.reverse(features, other)), "it listens to the disparity"

    def test_bfloat16_stays_close(self, name):
        module, features, disparity = self.setup_module_and_data(name)
        with torch.no_grad():
            wanted = module(features, disparity)
            with torch.autocast("cpu", torch.bfloat16):
                found = module(features, disparity).float()
        assert (found - wanted).norm() < 0.05 * wanted.norm()

    def test_every_parameter_is_trained(self, name):
        module, features, disparity = self.setup_module_and_data(name)
        optimiser = torch.optim.SGD(module.train().parameters(), lr=1e-2)
        for _ in range(2):  # what is multiplied by a weight that starts at zero is trained from the second step on
            optimiser.step()
            module(features, disparity).square().mean().backward()
        still = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not still

    def test_windows_are_steered_by_their_own_vector(self, name):
        module, features, disparity = self.setup_module_and_data(name)
        vectors = disparity.vectors.clone()
        vectors[0] += 3.0
        with torch.no_grad():
            change = (module(features, DisparityFeature(vectors, (2, 2)))
                      - module(features, disparity)).abs()
        assert change[0, :, :6, :10].max() > 1e-6
        assert change[1].max() == 0

    def test_other_batch_is_refused(self, name):
        module, features, disparity = self.setup_module_and_data(name)
        with pytest.raises(SizeError, match="1 images of features"):
            module(features[:1], disparity)

    def test_gradcheck(self, name):
        torch.manual_seed(0)
        module = MODULES.build({"type": name, "blocks": 1}, channels=2, vector_size=3).double()
        features = torch.rand(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
        vectors = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)

        def call(x, v):
            return module(x, DisparityFeature(v, (1, 1)))
        assert torch.autograd.gradcheck(call, (features, vectors))


@pytest.mark.parametrize("name", of_folder("preservation"))
class TestPreservation:
    def test_joined_channels_are_declared(self, name):
        module = build(name, before_channels=3, after_channels=5)
        joined = module(torch.rand(2, 3, 9, 7), torch.rand(2, 5, 9, 7))
        assert joined.shape == (2, module.out_channels, 9, 7)

    def test_both_inputs_count(self, name):
        module = build(name, before_channels=3, after_channels=5)
        before, after = torch.rand(1, 3, 9, 7), torch.rand(1, 5, 9, 7)
        with torch.no_grad():
            base = module(before, after)
            assert not torch.allclose(base, module(before + 0.5, after))
            assert not torch.allclose(base, module(before, after + 0.5))


@pytest.mark.parametrize("name", of_folder("reblur"))
class TestReblur:
    """With its default settings a reblur module works beside a small K3DN, so these are asked there."""

    def setup_module_and_data(self, name, height=96, width=80):
        module = build(name)
        restorer = ARCHS.build({"type": "K3DN", **ARCHS.get("K3DN").tiny_arguments}).eval()
        draw = torch.Generator().manual_seed(1)
        lq = torch.rand(2, 6, height, width, generator=draw)
        batch = {"lq": lq, "center": (lq[:, :3] + lq[:, 3:]) / 2,
                 "gt": torch.rand(2, 3, height, width, generator=draw)}
        return module, batch, restorer

    def reblur(self, module, batch, restorer):
        guidance = ReblurGuidance(batch=batch, prediction=restorer.training_outputs(batch), restorer=restorer)
        return module(batch["gt"], guidance)

    def test_it_gives_captured_views_whole_or_at_a_fraction(self, name):
        for height, width in ((96, 80), (57, 83)):
            for view, image in self.reblur(*self.setup_module_and_data(name, height, width)).items():
                assert view in ("left", "right", "center")
                factor = -(-width // image.shape[-1])
                assert image.shape == (2, 3, -(-height // factor), -(-width // factor))

    def test_its_loss_trains_the_restorer_and_all_of_itself(self, name):
        module, batch, restorer = self.setup_module_and_data(name)
        sum(image.square().mean() for image in self.reblur(module, batch, restorer).values()).backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in restorer.parameters())

    def test_bfloat16_stays_close(self, name):
        module, batch, restorer = self.setup_module_and_data(name)
        with torch.no_grad():
            wanted = self.reblur(module, batch, restorer)
            with torch.autocast("cpu", torch.bfloat16):
                found = self.reblur(module, batch, restorer)
        for view, image in wanted.items():
            assert (found[view].float() - image).norm() < 0.05 * image.norm()

    def test_gradcheck(self, name):
        module, batch, restorer = self.setup_module_and_data(name, 24, 24)
        module, restorer = module.double(), restorer.double().requires_grad_(False)
        batch = {key: value[:1].double() for key, value in batch.items()}
        with torch.no_grad():
            prediction = restorer.training_outputs(batch)

        def along(step):  # one direction in all inputs: every pixel by itself would take minutes
            moved = {**prediction, "restored": prediction["restored"] + step * (1 - prediction["restored"])}
            guidance = ReblurGuidance({**batch, "lq": batch["lq"] * (1 + step)}, moved, restorer)
            images = module(batch["gt"] * (1 - step), guidance)
            return torch.stack([(image * torch.linspace(-1, 2, image.shape[-1])).mean()
                                for image in images.values()])
        assert torch.autograd.gradcheck(along, torch.zeros((), dtype=torch.float64, requires_grad=True))
