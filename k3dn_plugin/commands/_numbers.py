"""Numbers on the command line: a wrong one is an error that names its argument, before anything is done."""
import argparse
import math
from collections.abc import Callable


def whole(least: int = 0, most: int = 2**63 - 1) -> Callable[[str], int]:
    """Return a type for argparse: whole numbers from `least` to `most`."""
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            bound = f"of at least {least}" if most == 2**63 - 1 else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number {bound}, found {text[:50]!r}")
        return value
    return convert


def number(least: float = 0.0, most: float = math.inf, *, above: bool = False) -> Callable[[str], float]:
    """Return a type for argparse: finite numbers from `least` (or above it) to `most`."""
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most and (value > least or not above)):
            bound = f"{'above' if above else 'of at least'} {least:g}"
            bound += f", at most {most:g}" if most < math.inf else ""
            raise argparse.ArgumentTypeError(f"expected a number {bound}, found {text[:50]!r}")
        return value
    return convert
