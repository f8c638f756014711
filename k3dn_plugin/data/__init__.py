"""Data: stores of whole frames, data sets that give samples, and the loader that feeds training.

| file                    | what                                                                        |
|-------------------------|-----------------------------------------------------------------------------|
| `sample.py`             | sample keys, `SampleIndex`, `collate`                                        |
| `images.py`             | image files in, image files out, at their own bit depth                      |
| `manifest.py`           | what a store says of itself                                                  |
| `lmdb_store.py`         | `LmdbStore`, reading                                                         |
| `store_writer.py`       | `StoreWriter`, building one crash-safely                                     |
| `basicsr_store.py`      | the same for BasicSR's LMDB layout                                           |
| `augmentation.py`       | flips that are valid for dual-pixel pairs, and the eight blind symmetries    |
| `dual_pixel_dataset.py` | `DualPixelDataset`: a store as a data set                                    |
| `simulated_dataset.py`  | `SimulatedDualPixelDataset`: pairs made while they are asked for             |
| `disparity_check.py`    | how far, and along which axis, the views of a pair are shifted               |
| `sampler.py`            | which samples an iteration sees, from any iteration on                       |
| `loader.py`             | `build_loader`                                                               |
| `preparation/`          | how published layouts become stores, one file a layout                       |
"""
from k3dn_plugin.data.lmdb_store import LmdbStore
from k3dn_plugin.data.store_writer import StoreWriter
from k3dn_plugin.data.stores import open_store

__all__ = ["LmdbStore", "StoreWriter", "open_store"]
