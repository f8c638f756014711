"""Dual-pixel pairs from photographs: optics, point spread functions, layers, scenes, sensor.

Signs, everywhere in this package: a blur radius r in pixels is negative nearer than the focus plane and
positive beyond it; for r > 0 the light of a point falls to the left of it in the left view and to the right in
the right view, as measured on real Canon pairs. Images are (..., 3, H, W), in linear light unless said
otherwise.
"""
