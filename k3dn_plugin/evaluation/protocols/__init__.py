"""The evaluation protocols, registered by name in `PROTOCOLS`; `base.py` says what one fixes."""
