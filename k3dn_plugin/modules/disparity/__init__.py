"""Disparity modules: two views in, one vector per window out."""
