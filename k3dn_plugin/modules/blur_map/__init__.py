"""Blur maps: how strongly each place of a pair is blurred, for a restorer that is guided by it (LDP).

A blur map module has `forward(lq) -> (B, 1, H, W)`: from (B, 6, H, W) in [0, 1], left RGB then right RGB, to values in
[0, 1], 0 in focus and 1 at the image's strongest blur. One whose map comes with the sample instead also has
`of_sample(sample) -> (1, h, w)` and `of_batch(batch) -> (B, 1, h, w)` (`file.py`).
"""
