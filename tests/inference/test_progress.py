"""The bar over files and tiles: what it says, when it is silent, and that it never stops the work."""
import io
import sys

import pytest

from k3dn_plugin.inference.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Closed(Terminal):
    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("stream, shown, expected", [
    (Terminal, None, True), (Terminal, False, False), (io.StringIO, None, False), (io.StringIO, True, True)])
def test_it_is_shown_on_a_terminal_or_where_asked_for(stream, shown, expected, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    with ProgressBar(2, unit="image", title="scoring", shown=shown) as bar:
        bar.tile(3, 4)
        bar.next()
    assert ("scoring: image 1 of 2" in sys.stderr.getvalue()) == expected
    assert sys.stderr.getvalue() == "" or expected


def test_it_moves_with_tiles_and_back_where_a_frame_is_begun_again(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with ProgressBar(4, shown=True) as bar:
        places = []
        for step in (lambda: bar.tile(1, 2), lambda: bar.tile(1, 8), lambda: bar.tile(8, 8), bar.next, bar.next,
                     lambda: bar.tile(1, 4)):
            step()
            places.append(bar._bar.n)
        assert places == pytest.approx([0.5, 0.125, 1, 1, 2, 2.25])
        bar._bar.refresh()
        assert "file 3 of 4, tile 1 of 4" in sys.stderr.getvalue() and " left" in sys.stderr.getvalue()


@pytest.mark.parametrize("stream", [Closed, lambda: None])
def test_a_terminal_that_is_gone_does_not_stop_the_work(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    with ProgressBar(2, shown=True) as bar:
        for _ in range(2):
            bar.tile(1, 1)
            bar.next()
    assert bar._bar.n == 2


def test_lines_stand_above_the_bar(monkeypatch, capsys):
    with ProgressBar(1, shown=True) as bar:
        bar.say("restored.png: whole")
        bar.say("note: careful", error=True)
    out, err = capsys.readouterr()
    assert out == "restored.png: whole\n" and "note: careful\n" in err
