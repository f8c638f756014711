"""Deblur modules: features and disparity in, deblurred features out."""
