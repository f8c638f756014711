import argparse

import pytest

from k3dn_plugin.commands import main
from k3dn_plugin.commands._numbers import number, whole
from k3dn_plugin.data.sample import random_source
from k3dn_plugin.errors import OptionError


def test_numbers_within_their_bounds():
    assert whole()("7") == 7 and whole(256, 65535)("4095") == 4095
    assert number(0, 1)("0.5") == 0.5 and number()("0") == 0.0
    for convert, text in ((whole(), "-1"), (whole(), "1.5"), (whole(), "nan"), (whole(1), "0"), (whole(0, 9), "10"),
                          (number(), "nan"), (number(), "inf"), (number(), "-1"), (number(above=True), "0"),
                          (number(0, 1), "1.1"), (number(), "x"), (whole(), "9" * 5000)):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a (whole )?number"):
            convert(text)


@pytest.mark.parametrize("arguments", [
    ["simulate", "--demo", "--out", "x", "--seed", "-1"], ["simulate", "--photos", "x", "--out", "y", "--shot", "nan"],
    ["restore", "--left", "l", "--right", "r", "-o", "o", "--weights", "w", "--tile", "0"],
    ["prepare", "pairs", "--source", "s", "--out", "o", "--full-scale", "0"],
    ["test", "--weights", "center", "--data", "d", "--max-memory-gb", "inf"],
    ["compare", "center", "--data", "d", "--out", "o", "--jobs", "0"]])
def test_wrong_numbers_are_named_before_anything_is_done(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"error: argument {arguments[-2]}: expected a" in capsys.readouterr().err


def test_a_negative_seed_is_an_error_in_option_files_too():
    with pytest.raises(OptionError, match="seed: expected whole numbers of at least 0, found -1"):
        random_source(-1, 0)
