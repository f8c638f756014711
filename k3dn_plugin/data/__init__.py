"""Data: stores of whole frames, data sets that give samples, and the loader that feeds training.

| file                    | what                                                                        |
|-------------------------|-----------------------------------------------------------------------------|
| `sample.py`             | sample keys, `SampleIndex`, `collate`                                        |
| `images.py`             | image files in, image files out, at their own bit depth                      |
| `store/`                | stores of whole frames: manifest, reader, writer, BasicSR's layout           |
| `augmentation.py`       | flips that are valid for dual-pixel pairs, and the eight blind symmetries    |
| `datasets/`             | data sets that give samples: `DualPixelDataset`, a store as a data set       |
| `disparity_check.py`    | how far, and along which axis, the views of a pair are shifted               |
| `sampler.py`            | which samples an iteration sees, from any iteration on                       |
| `loader.py`             | `build_loader`                                                               |
| `preparation/`          | how published layouts become stores, one file a layout                       |
"""
from k3dn_plugin.data.store import open_store
from k3dn_plugin.data.store.reader import LmdbStore
from k3dn_plugin.data.store.writer import StoreWriter

__all__ = ["LmdbStore", "StoreWriter", "open_store"]
