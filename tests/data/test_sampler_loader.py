import pytest
import torch

from k3dn_plugin.data.datasets.dual_pixel_dataset import DualPixelDataset
from k3dn_plugin.data.loader import build_loader
from k3dn_plugin.data.sample import SampleIndex
from k3dn_plugin.data.sampler import Phase, ResumableSampler, phase_at, samples_before
from k3dn_plugin.errors import DataError, OptionError


class Recorded(torch.utils.data.Dataset):
    """Samples that say who they are; one of them is broken where asked."""

    def __init__(self, length, broken=None):
        self.length, self.broken = length, broken

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index.index == self.broken:
            raise DataError(f"sample {index.index} is broken; mend it")
        return {"lq": torch.full((6, 2, 2), float(index.index)), "name": f"{index.epoch}/{index.index}"}


# The sampler

def test_every_epoch_is_a_permutation_and_batches_are_full():
    batches = list(ResumableSampler(7, [Phase(7, 3)], seed=1))
    assert [len(batch) for batch in batches] == [3] * 7
    flat = [item for batch in batches for item in batch]
    orders = [[i.index for i in flat if i.epoch == epoch] for epoch in range(3)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("start", [0, 1, 5, 11, 12])
def test_starting_later_is_skipping(start):
    phases = [Phase(5, 4), Phase(7, 2, (16, 16))]
    whole = list(ResumableSampler(9, phases, seed=3))
    late = ResumableSampler(9, phases, seed=3, start_iteration=start)
    assert list(late) == whole[start:] and len(late) == len(whole) - start


def test_starting_late_costs_nothing():
    sampler = ResumableSampler(350, [Phase(10**9, 4)], start_iteration=10**9 - 2)
    assert len(list(sampler)) == 2


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_take_what_one_takes(world_size):
    one = list(ResumableSampler(11, [Phase(6, 2 * world_size), Phase(5, world_size)], seed=2))
    shares = [list(ResumableSampler(11, [Phase(6, 2), Phase(5, 1)], seed=2, rank=rank, world_size=world_size))
              for rank in range(world_size)]
    for iteration, batch in enumerate(one):
        assert sorted(batch) == sorted(item for share in shares for item in share[iteration])


def test_a_schedule_of_crops_goes_with_the_samples():
    batches = list(ResumableSampler(5, [Phase(1, 3, (128, 128)), Phase(1, 2, (256, 256))]))
    assert [(len(b), b[0].crop_size) for b in batches] == [(3, (128, 128)), (2, (256, 256))]


def test_accumulated_batches_belong_to_one_iteration():
    phases = [Phase(3, 2, accumulate=2), Phase(2, 1, accumulate=3)]
    plain = list(ResumableSampler(9, [Phase(6, 2), Phase(6, 1)], seed=3))
    assert list(ResumableSampler(9, phases, seed=3)) == plain
    late = ResumableSampler(9, phases, seed=3, start_iteration=4)
    assert list(late) == plain[9:] and len(late) == 3
    assert [samples_before(phases, n) for n in (0, 2, 4, 5)] == [0, 8, 15, 18]
    assert [phase_at(phases, n).global_batch for n in (2, 3, 9)] == [4, 3, 3]


def test_without_shuffling():
    batches = list(ResumableSampler(3, [Phase(2, 2)], shuffle=False))
    assert batches == [[SampleIndex(0, 0), SampleIndex(0, 1)], [SampleIndex(0, 2), SampleIndex(1, 0)]]


def test_what_a_sampler_refuses():
    with pytest.raises(DataError, match="empty"):
        ResumableSampler(0, [Phase(1, 1)])
    for arguments in ({"rank": 2, "world_size": 2}, {"start_iteration": -1}):
        with pytest.raises(OptionError):
            ResumableSampler(5, [Phase(1, 1)], **arguments)
    with pytest.raises(OptionError):
        ResumableSampler(5, [Phase(1, 0)])
    with pytest.raises(IndexError, match="batch 3 of 3"):
        ResumableSampler(5, [Phase(3, 1)]).batch(3)


# The loader

def test_workers_do_not_change_what_is_read(tiny_store):
    dataset = DualPixelDataset(store=str(tiny_store), crop_size=32, augment="dp_safe")
    settings = {"batch_size": 2, "total_iterations": 5, "seed": 4}
    batches = {workers: list(build_loader(dataset, num_workers=workers, **settings)) for workers in (0, 1, 2)}
    late = list(build_loader(dataset, num_workers=2, start_iteration=3, **settings))
    for workers in (1, 2):
        for one, other in zip(batches[0], batches[workers]):
            assert one["name"] == other["name"] and torch.equal(one["lq"], other["lq"])
    assert [b["name"] for b in late] == [b["name"] for b in batches[0][3:]]
    assert torch.equal(late[0]["gt"], batches[0][3]["gt"])


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_generator_alone(workers):
    state = torch.get_rng_state()
    assert len(list(build_loader(Recorded(4), batch_size=2, total_iterations=3, num_workers=workers))) == 3
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_arrives_as_it_was_raised(workers):
    loader = build_loader(Recorded(6, broken=3), batch_size=2, total_iterations=9, num_workers=workers)
    with pytest.raises(DataError) as error:
        list(loader)
    assert str(error.value) == "sample 3 is broken; mend it"


def test_batches_of_two_processes_are_those_of_one():
    def names(**arguments):
        return [batch["name"] for batch in build_loader(Recorded(7), total_iterations=4, seed=1, **arguments)]
    one = names(batch_size=4)
    two = [names(batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    assert [sorted(batch) for batch in one] == [sorted(a + b) for a, b in zip(*two)]


def test_a_loader_needs_a_length():
    with pytest.raises(OptionError, match="batch_size and total_iterations, or phases"):
        build_loader(Recorded(3), batch_size=2)
    assert len(build_loader(Recorded(3), phases=[Phase(2, 1), Phase(3, 2)])) == 5
