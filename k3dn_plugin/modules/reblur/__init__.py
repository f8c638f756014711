"""Reblur modules: the sharp image blurred again, to be compared with what was captured."""
