"""Whole restorers, one file a network."""
