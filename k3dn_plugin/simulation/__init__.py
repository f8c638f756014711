"""Dual-pixel pairs from photographs, with depth made up or given (docs/simulation.md).

Signs, everywhere in this package: a blur radius r in pixels is negative nearer than the focus plane and
positive beyond it; for r > 0 the light of a point falls to the left of it in the left view and to the right in
the right view, as measured on real Canon pairs. Images are (..., 3, H, W), in linear light unless said
otherwise.

| file                                     | what                                                          |
|------------------------------------------|---------------------------------------------------------------|
| `photographs.py`, `sources.py`           | what scenes are made from                                     |
| `photograph_list.py`                     | freely licensed photographs, and the crops cut out of them    |
| `depth_files.py`                         | depth in PNG, TIFF, PFM, .npy                                 |
| `scenes.py`, `procedural.py`             | random scenes with depth; drawn pictures                      |
| `optics.py`, `field_window.py`           | from distance to blur; where a picture lies in the frame      |
| `psf/`                                   | kernels of the two views, one family a file                   |
| `layers.py`, `spread.py`, `disparity.py` | occlusion-aware rendering; the disparity that was rendered    |
| `radial.py`, `sensor.py`, `color.py`     | distortion; gain, vignetting, noise; the sRGB curve           |
| `settings.py`, `pairs.py`, `rgbd.py`     | what is drawn for a scene; its frames, without and with depth |
| `rdpd.py`, `dddnet.py`                   | the published simulators                                      |
| `build.py`, `demo.py`                    | stores of scenes                                              |
| `overview.py`                            | pictures                                                      |
"""
