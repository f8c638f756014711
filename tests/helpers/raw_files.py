"""Small camera files with exact truth: a two-frame CR2, a two-sample DNG, a PGM pair. Made-up numbers only.

The CR2 has what LibRaw looks for and nothing more: make and model in the first directory, then one directory
for each raw frame with its lossless JPEG (ITU T.81, annex H; predictor 1). Every Huffman code has eight bits.
"""
import struct
from pathlib import Path

import numpy as np

BLACK = 512
MODEL = "Canon EOS 5D Mark IV"
SHORT, LONG, TEXT = 3, 4, 2


def dual_pixel_frames(seed: int = 0, size: tuple[int, int] = (64, 96), shift: int = 2,
                      level: int = 2400) -> dict[str, np.ndarray]:
    """Mosaics (H, W) uint16 with black level: `sum`, `left` and `right`, smooth and shifted against each other."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size[0], :size[1]].astype(float)
    waves = sum(np.sin(draw.uniform(.15, .6) * rows + draw.uniform(.15, .6) * columns + draw.uniform(0, 6))
                for _ in range(4))
    noise = draw.normal(0, .4, size)
    picture = (waves + noise - (waves + noise).min()) / np.ptp(waves + noise) * level + 40
    left = np.round(np.roll(picture, shift, 1)).astype(int)
    right = np.round(np.roll(picture, -shift, 1) * 0.9).astype(int)
    frames = {"left": left + BLACK, "right": right + BLACK, "sum": left + right + BLACK}
    return {name: np.minimum(frame, 16383).astype(np.uint16) for name, frame in frames.items()}


def write_cr2(path: Path, frames: list[np.ndarray], model: str = MODEL, orientation: int = 1) -> Path:
    """A CR2 with one raw image for each of `frames` (H, W) uint16, W even; `orientation` as in Exif."""
    images = [lossless_jpeg(frame) for frame in frames]
    make, name = b"Canon\0", model.encode() + b"\0"
    directories = [2 + 12 * 3 + 4] + [2 + 12 * 4 + 4] * len(frames)
    place = 16 + sum(directories)
    texts = {271: (place, make), 272: (place + len(make), name)}
    slices = place + len(make) + len(name)
    place = slices + 6
    starts = []
    for image in images:
        starts.append(place)
        place += len(image)
    body = _directory([*((tag, TEXT, len(text), at) for tag, (at, text) in texts.items()),
                       (274, SHORT, 1, orientation)], 16 + directories[0])
    for number, (start, image) in enumerate(zip(starts, images, strict=True)):
        following = 16 + sum(directories[:number + 2]) if number + 1 < len(images) else 0
        body += _directory([(259, SHORT, 1, 6), (273, LONG, 1, start), (279, LONG, 1, len(image)),
                            (0xC640, SHORT, 3, slices)], following)
    head = struct.pack("<2sHI4sI", b"II", 42, 16, b"CR\2\0", 16 + directories[0])
    whole = head + body + make + name + struct.pack("<HHH", 0, 0, frames[0].shape[1]) + b"".join(images)
    path.write_bytes(whole)
    return path


def lossless_jpeg(mosaic: np.ndarray, bits: int = 14) -> bytes:
    """A mosaic (H, W) as a lossless JPEG of two components (even and odd columns)."""
    height, width = mosaic.shape
    values = mosaic.astype(np.int64).reshape(height, width // 2, 2)
    before = np.empty_like(values)
    before[:, 1:] = values[:, :-1]
    before[1:, 0] = values[:-1, 0]       # the first sample of a row is predicted from that above it
    before[0, 0] = 1 << (bits - 1)
    difference = (values - before).ravel()
    length = np.ceil(np.log2(np.abs(difference) + 1)).astype(int)
    extra = np.where(difference < 0, difference + (1 << length) - 1, difference)
    # Each sample: the eight-bit code of `length`, then `length` bits.
    codes, sizes = (length << length) | extra, 8 + length
    total = int(sizes.sum())
    owner = np.repeat(np.arange(len(sizes)), sizes)
    from_end = np.cumsum(sizes)[owner] - 1 - np.arange(total)
    stream = np.packbits(np.append((codes[owner] >> from_end & 1).astype(np.uint8),
                                   np.ones(-total % 8, np.uint8))).tobytes().replace(b"\xff", b"\xff\0")
    table = b"".join(bytes([component]) + bytes(7) + b"\x11" + bytes(8) + bytes(range(17)) for component in (0, 1))
    shape = struct.pack(">BHHB", bits, height, width // 2, 2) + b"\1\x11\0\2\x11\0"
    scan = b"\2\1\0\2\x10\1\0\0"
    return (b"\xff\xd8" + _segment(0xC4, table) + _segment(0xC3, shape) + _segment(0xDA, scan) + stream
            + b"\xff\xd9")


def write_dng(path: Path, samples: list[np.ndarray], *, black: int = BLACK, white: int = 16383,
              claimed: tuple[int, int] | None = None) -> Path:
    """An uncompressed DNG with one or two samples a pixel, each (H, W) uint16; `claimed` lies about the size."""
    height, width = claimed or samples[0].shape
    pixels = np.stack(samples, -1).astype("<u2").tobytes()
    count = len(samples)
    matrix = [6446, -366, -864, -4436, 12204, 2513, -952, 2496, 6348]
    texts = [b"Example\0", b"Two Samples\0"]
    entries = [(254, LONG, 1, 0), (256, LONG, 1, width), (257, LONG, 1, height),
               (258, SHORT, count, 16 if count == 1 else 16 | 16 << 16), (259, SHORT, 1, 1), (262, SHORT, 1, 32803),
               (271, TEXT, len(texts[0]), "make"), (272, TEXT, len(texts[1]), "model"), (273, LONG, 1, "pixels"),
               (277, SHORT, 1, count), (278, LONG, 1, height), (279, LONG, 1, len(pixels)), (284, SHORT, 1, 1),
               (33421, SHORT, 2, 2 | 2 << 16), (33422, 1, 4, 0x02010100), (50706, 1, 4, 0x0401),
               (50707, 1, 4, 0x0101), (50708, TEXT, len(texts[1]), "model"), (50714, SHORT, 1, black),
               (50717, SHORT, 1, white), (50721, 10, 9, "matrix")]
    start = 8 + 2 + 12 * len(entries) + 4
    parts = {"make": texts[0], "model": texts[1], "matrix": b"".join(struct.pack("<ii", m, 10000) for m in matrix),
             "pixels": pixels}
    places = {}
    for name, part in parts.items():
        places[name] = start
        start += len(part)
    body = _directory([(*entry[:3], places.get(entry[3], entry[3])) for entry in entries], 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + body + b"".join(parts.values()))
    return path


def write_pgm(path: Path, numbers: np.ndarray, comment: str = "") -> Path:
    """A binary PGM of (H, W) uint16, as Google's capture app writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"P5 {comment}{numbers.shape[1]} {numbers.shape[0]} 65535 ".encode()
    path.write_bytes(head + numbers.astype(">u2").tobytes())
    return path


def _directory(entries: list[tuple[int, int, int, int]], following: int) -> bytes:
    return (struct.pack("<H", len(entries))
            + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries)) + struct.pack("<I", following))


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content
