"""Scores that mean something: metrics, the papers' protocols by name, whole frames in bounded memory."""
