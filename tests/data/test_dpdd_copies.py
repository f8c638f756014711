"""DPDD as its public Hugging Face copy has it: Parquet shards, and the PNG tree."""
import errno
import sys
import tempfile

import miniatures
import numpy as np
import pytest

from k3dn_plugin.data.images import encode_image
from k3dn_plugin.data.preparation import prepare
from k3dn_plugin.data.preparation.dpdd import official_pairs
from k3dn_plugin.errors import DataError, DependencyError, StorageError

pyarrow = pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
parquet = pytest.importorskip("pyarrow.parquet")

COLUMNS = {"left": {"source": ("left", "_L")}, "right": {"source": ("right", "_R")},
           "combined": {"source": ("center", ""), "target": ("sharp", None)}}


def write_shards(root, split, names, *, shards=2, named=True, dtype=np.uint16, order=None):
    """Shards of one split with two rows a row group; the frames by scene."""
    pairs = official_pairs(split)
    written = {name: miniatures.frames(number, dtype=dtype) for number, name in enumerate(names)}
    for folder, columns in COLUMNS.items():
        rows = names if order is None or folder != "right" else [names[i] for i in order]
        for shard, part in enumerate(np.array_split(np.arange(len(rows)), shards)):
            table = {}
            for column, (view, ending) in columns.items():
                files = [pairs.get(rows[i], f"{rows[i]}_t") if ending is None else f"{rows[i]}{ending}" for i in part]
                table[column] = [{"bytes": encode_image(written[rows[i]][view], ".png"),
                                  "path": f"{file}.png" if named else None}
                                 for i, file in zip(part, files, strict=True)]
            image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
            table = pyarrow.table({column: pyarrow.array(values, image) for column, values in table.items()})
            (root / folder).mkdir(parents=True, exist_ok=True)
            parquet.write_table(table, root / folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet", row_group_size=2)
    return written


@pytest.fixture
def names():
    return list(official_pairs("train"))[:7]


def assert_holds(store, written):
    assert store.names == tuple(sorted(written))
    for name, frames in written.items():
        for view in ("left", "right", "center", "sharp"):
            assert np.array_equal(store.read(name, view), frames[view])


def test_shards_are_the_same_store_as_files(tmp_path, names):
    # The rows of one view come in another order, as nothing promises that they do not.
    written = write_shards(tmp_path / "copy", "train", names, order=[3, 0, 6, 1, 2, 5, 4])
    tests = list(official_pairs("test"))[:2]
    write_shards(tmp_path / "copy", "test", tests, shards=1)
    train, test = prepare("dpdd", tmp_path / "copy", tmp_path / "out")
    assert_holds(train.store, written)
    assert test.store.names == tuple(sorted(tests))
    assert test.store.scene(tests[0]).tags["place"] in ("indoor", "outdoor")
    assert train.store.manifest.facts["layout"] == "Parquet shards"
    assert "incomplete: 7 of the 350 official train scenes" in train.summary()
    miniatures.dpdd(tmp_path / "files", counts={"train": 7, "val": 1, "test": 1})
    files = prepare("dpdd", tmp_path / "files", tmp_path / "out_files")[0].store
    for name in names:
        for view, record in files.scene(name).views.items():
            there = train.store.scene(name).views[view]
            assert (there.sha256, there.source_sha256) == (record.sha256, record.source_sha256)
    assert "copy" not in there.source and "/source/" in train.store.scene(names[0]).views["left"].source


def test_an_interrupted_build_goes_on(tmp_path, names):
    written = write_shards(tmp_path / "copy", "train", names)
    shard = tmp_path / "copy/right/train-00001-of-00002.parquet"
    whole = shard.read_bytes()
    broken = bytearray(whole)
    place = broken.index(b"\x89PNG") + 300
    broken[place] ^= 255
    shard.write_bytes(broken)
    with pytest.raises(DataError, match=r"train-00001-of-00002.parquet \(row 0, source\): the PNG file is damaged"):
        prepare("dpdd", tmp_path / "copy", tmp_path / "out")
    shard.write_bytes(whole)
    assert_holds(prepare("dpdd", tmp_path / "copy", tmp_path / "out")[0].store, written)


def test_shards_without_names_belong_together_by_row(tmp_path, names):
    written = write_shards(tmp_path, "train", names, named=False)
    prepared = prepare("dpdd", tmp_path, tmp_path / "out")[0]
    assert prepared.store.names[0] == "train_0000" and "no file names" in prepared.summary()
    assert np.array_equal(prepared.store.read("train_0004", "right"), written[names[4]]["right"])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("fault, message", [
    (lambda root: (root / "right/train-00000-of-00002.parquet").unlink(),
     "right: of the 2 train shards number 0 is missing"),
    (lambda root: [path.unlink() for path in (root / "right").iterdir()], "right: no train shards"),
    (lambda root: (root / "left/train-00001-of-00002.parquet").write_bytes(
        (root / "left/train-00001-of-00002.parquet").read_bytes()[:-30]), "00001-of-00002.parquet: not a whole"),
    (lambda root: empty(root / "left/train-00001-of-00002.parquet"), "00001-of-00002.parquet: not a whole Parquet"),
    (lambda root: (root / "left/train-00001-of-00002.parquet").write_bytes(
        (root / "left/train-00000-of-00002.parquet").read_bytes()), "8 rows of the left view, 7 rows of the right"),
    (lambda root: [path.rename(path.with_name(path.name.replace("train", "val")))
                   for path in sorted((root / "left").iterdir())], "left: no train shards"),
    (lambda root: [(root / f"combined/train-0000{n}-of-00002.parquet").write_bytes(
        (root / f"left/train-0000{n}-of-00002.parquet").read_bytes()) for n in (0, 1)],
     "expected a column 'target' of pictures, found source"),
])
def test_faults_of_shards(fault, message, tmp_path, names):
    write_shards(tmp_path / "copy", "train", names)
    fault(tmp_path / "copy")
    with pytest.raises(DataError, match=message):
        prepare("dpdd", tmp_path / "copy", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.lmdb")) if (tmp_path / "out").exists() else True


def test_contents_of_shards_are_checked(tmp_path, names, monkeypatch):
    write_shards(tmp_path / "eight", "train", names, dtype=np.uint8)
    with pytest.raises(DataError, match=r"\(row 0, source\): expected 16 bits a channel, the file has 8"):
        prepare("dpdd", tmp_path / "eight", tmp_path / "out")
    write_shards(tmp_path / "other", "train", [*names[:5], *list(official_pairs("val"))[:1]])
    with pytest.raises(DataError, match="belongs to the official val split"):
        prepare("dpdd", tmp_path / "other", tmp_path / "out")
    pairs = official_pairs("train")
    monkeypatch.setattr(sys.modules[__name__], "official_pairs", lambda split: {**pairs, names[1]: pairs[names[0]]})
    write_shards(tmp_path / "swapped", "train", names)
    with pytest.raises(DataError, match=f"scene {names[1]}: .* has the sharp image {pairs[names[0]]} beside it"):
        prepare("dpdd", tmp_path / "swapped", tmp_path / "out")


def test_pictures_that_are_null_or_of_another_kind(tmp_path, names):
    write_shards(tmp_path, "train", names, shards=1)
    path = tmp_path / "left/train-00000-of-00001.parquet"
    rows = parquet.read_table(path).column("source").to_pylist()
    rows[3]["bytes"] = None
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    parquet.write_table(pyarrow.table({"source": pyarrow.array(rows, kind)}), path)
    with pytest.raises(DataError, match="row 3 of 'source' holds no picture"):
        prepare("dpdd", tmp_path, tmp_path / "out")
    parquet.write_table(pyarrow.table({"source": [row["path"] for row in rows]}), path)
    with pytest.raises(DataError, match="its column 'source' is of string; expected pictures"):
        prepare("dpdd", tmp_path, tmp_path / "out")


def test_a_damaged_page_and_a_full_disk(tmp_path, names, monkeypatch):
    write_shards(tmp_path / "copy", "train", names)
    shard = tmp_path / "copy/left/train-00000-of-00002.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:4] + bytes(60) + whole[64:])  # where the first page says what it is
    with pytest.raises(DataError, match="train-00000-of-00002.parquet: .*damaged"):
        prepare("dpdd", tmp_path / "copy", tmp_path / "out")
    shard.write_bytes(whole)

    class Full:
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **settings: Full())
    with pytest.raises(StorageError, match="could not write .*pictures of a Parquet file: No space left"):
        prepare("dpdd", tmp_path / "copy", tmp_path / "out")


def test_a_missing_pyarrow_is_named_with_the_extra(tmp_path, names, monkeypatch):
    write_shards(tmp_path, "train", names)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DependencyError, match=r"pip install 'k3dn_plugin\[parquet\]'"):
        prepare("dpdd", tmp_path, tmp_path / "out")


def test_the_png_tree_of_the_copy(tmp_path, names):
    written = miniatures.dpdd(tmp_path / "dd_dp_dataset_png")
    # What lies beside it in the copy says nothing new.
    for view in ("left", "right", "combined"):
        for split in ("train", "val", "test"):
            (tmp_path / "config" / view / split).mkdir(parents=True)
            (tmp_path / "config" / view / split / "metadata.jsonl").write_text("{}\n")
    prepared = prepare("dpdd", tmp_path, tmp_path / "out")
    for split in prepared:
        assert_holds(split.store, written[split.split.name])


@pytest.mark.parametrize("deep", [True, False])
def test_a_folder_a_view(deep, tmp_path, names):
    from k3dn_plugin.data.images import write_image
    written = {name: miniatures.frames(number) for number, name in enumerate(names)}
    pairs = official_pairs("train")
    for name, frames in written.items():
        inner = "source/" if deep else ""
        for place, view in ((f"left/train/{inner}{name}_L", "left"), (f"right/train/{inner}{name}_R", "right"),
                            (f"combined/train/source/{name}", "center"),
                            (f"combined/train/target/{pairs[name]}", "sharp")):
            write_image(tmp_path / f"{place}.png", frames[view])
    assert_holds(prepare("dpdd", tmp_path, tmp_path / "out")[0].store, written)
