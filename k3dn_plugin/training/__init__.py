"""Training: `train(options)` runs a recipe; see `run.py`, and `trainer.py` for the loop itself."""
from typing import Any


def __getattr__(name: str) -> Any:
    # Lazy, so that `import k3dn_plugin.training` does not load torch's training machinery.
    if name in ("train", "TrainingResult"):
        from k3dn_plugin.training import run  # lazy: heavy
        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
