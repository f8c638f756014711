"""BasicSR, mmengine and torchvision: the only files that know those packages."""
