"""A bar for long work on photographs: which one, which tile of it, how much time is left."""
import sys
from types import TracebackType

from tqdm import tqdm

from k3dn_plugin.console import LastingStream

FORMAT = "{desc} |{bar}| {percentage:3.0f} %, {elapsed} gone, {remaining} left"


class ProgressBar:
    """A bar on standard error over pieces of work (files, images), which moves with each tile of a piece too.

        with ProgressBar(len(files), unit="file") as bar:
            for file in files:
                restorer.restore(..., progress=bar.tile)
                bar.next()

    A terminal that closes does not stop the work.

    Args:
        total: pieces of work.
        unit: what a piece is called.
        title: what is done.
        shown: True for a bar in any case, False for none, None for one where standard error is a terminal.
    """

    def __init__(self, total: int, *, unit: str = "file", title: str = "", shown: bool | None = None) -> None:
        stream = sys.stderr if isinstance(sys.stderr, LastingStream) else LastingStream(sys.stderr)
        self._total, self._unit, self._title, self._done = total, unit, title, 0
        self._bar = tqdm(total=max(total, 1), desc=self._text(), file=stream, bar_format=FORMAT, dynamic_ncols=True,
                         disable=None if shown is None else not shown, leave=False, smoothing=0)

    def tile(self, done: int, total: int) -> None:
        """Move within the present piece: `done` of its `total` tiles are done. A `Progress` of `FrameRestorer`."""
        self._bar.set_description_str(self._text(f", tile {done} of {total}" if total > 1 else ""), refresh=False)
        self._move(self._done + done / total)

    def next(self) -> None:
        """Count the present piece as done, whether or not its tiles were counted."""
        self._done += 1
        self._bar.set_description_str(self._text(), refresh=False)
        self._move(self._done)

    def say(self, text: str, *, error: bool = False) -> None:
        """Print a line above the bar, to standard output or standard error."""
        self._bar.clear()
        print(text, file=sys.stderr if error else sys.stdout, flush=True)
        self._bar.refresh()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _text(self, more: str = "") -> str:
        title = f"{self._title}: " if self._title else ""
        return f"{title}{self._unit} {min(self._done + 1, self._total)} of {self._total}{more}"

    def _move(self, place: float) -> None:
        # Backwards where memory ran out and a frame was begun again in smaller tiles.
        self._bar.update(place - self._bar.n)
