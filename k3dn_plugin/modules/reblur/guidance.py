"""What a reblur module may look at."""
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReblurGuidance:
    """The training step around a reblur module.

    Attributes:
        batch: the batch, with `lq`, `center` and `gt` in [0, 1].
        prediction: what the restorer's `training_outputs` gave, e.g. its `disparity`.
        restorer: the network itself.
    """

    batch: dict[str, Any]
    prediction: dict[str, Any]
    restorer: Any
