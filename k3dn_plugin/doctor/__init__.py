"""What is installed, missing or broken, and whether stores are still whole."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `state` is "ok", "missing", "broken" or "note"."""

    what: str
    state: str
    detail: str
    fix: str = ""

    @property
    def harmful(self) -> bool:
        """Whether the toolbox does not work with it."""
        return self.state in ("missing", "broken")
