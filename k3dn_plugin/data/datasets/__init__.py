"""Data sets that give samples."""
