"""Fixtures that all tests share."""
import signal

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in jobs that a script starts with `&`; the commands that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROWS, COLUMNS = 96, 112


def tiny_scene(number, shape=(ROWS, COLUMNS), dtype=np.uint16):
    """Frames of one scene: a smooth random picture, its views shifted against each other by some pixels."""
    draw = np.random.default_rng(number)
    rows, columns = np.mgrid[:shape[0], :shape[1]] / 12
    waves = sum(np.sin(draw.uniform(0.2, 2) * rows + draw.uniform(0.2, 2) * columns + draw.uniform(0, 6))
                for _ in range(4))
    sharp = np.stack([waves * draw.uniform(0.5, 1) for _ in range(3)], -1) + draw.normal(0, 0.05, (*shape, 3))
    sharp = (sharp - sharp.min()) / np.ptp(sharp)
    shift = 1 + number % 3
    frames = {"left": np.roll(sharp, -shift, 1), "right": np.roll(sharp, shift, 1), "sharp": sharp}
    frames["center"] = (frames["left"] + frames["right"]) / 2
    return {view: (frame * np.iinfo(dtype).max).astype(dtype) for view, frame in frames.items()}


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory):
    """Path of a store of six scenes, 96 x 112, uint16: left, right, center, sharp. Only read it."""
    from k3dn_plugin.data import StoreWriter
    path = tmp_path_factory.mktemp("stores") / "tiny.lmdb"
    with StoreWriter(path, dataset="tiny", facts={"bit_depth": 16}) as writer:
        for number in range(6):
            writer.add(f"scene_{number:03d}", tiny_scene(number),
                       tags={"place": "indoor" if number % 2 else "outdoor"})
        writer.finish()
    return path
