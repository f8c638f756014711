"""Restoring whole frames: sizes, tiles, memory, files in and out."""
