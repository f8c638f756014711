"""The console command: its help, its groups, and what it does to arguments before a subcommand sees them."""
import subprocess
import sys
from pathlib import Path

import pytest

from k3dn_plugin.commands import _console, build_parser, commands, main
from k3dn_plugin.console import command_line


def test_every_command_says_what_it_does_and_where_it_belongs():
    for name, module in commands().items():
        assert module.GROUP in _console.GROUPS and module.__doc__.strip(), name


def test_help_lists_all_commands(capsys):
    assert main([]) == 0
    page = capsys.readouterr().out
    assert all(f"  {name} " in page for name in commands())


def test_the_package_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "k3dn_plugin", "list", "--help"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("usage: k3dn list"), done.stdout[-300:] + done.stderr


def test_a_command_line_is_one_that_a_shell_finds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    assert command_line("train") == "'my env/bin/python' -m k3dn_plugin train"
    (folder / "k3dn").touch(mode=0o755)
    assert command_line("train") == "'my env/bin/k3dn' train"
    monkeypatch.setenv("PATH", str(folder))
    assert command_line("train") == "k3dn train"


def test_the_parser_of_completion_knows_every_command():
    page = build_parser().format_help()
    assert all(name in page for name in commands())


@pytest.mark.parametrize("given, wanted", [
    ("~/views", "/home/me/views"), (Path("~/out"), Path("/home/me/out")), ("$HOME/a.png", "/home/me/a.png"),
    (["~/a", "b"], ["/home/me/a", "b"]), ("a~b", "a~b"), ("name=~", "name=~"), (3, 3), (None, None)])
def test_home_is_expanded_in_every_argument(given, wanted, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert _console._expanded(given) == wanted


def test_help_reads_no_part_of_the_package_that_takes_time():
    code = ("import sys\nfrom k3dn_plugin.commands import main\n"
            "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
            "print('heavy:', sorted({'cv2', 'numpy', 'lmdb', 'torch'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith("heavy: []"), done.stdout[-300:] + done.stderr


@pytest.mark.parametrize("argv, named", [
    (["views", "photo.CR2", "-o", ""], "-o"), (["simulate", "--photos", "", "--out", "s.lmdb"], "--photos"),
    (["views", "photo.CR2", "--out="], "--out="), (["photographs", "--source", ""], "--source")])
def test_an_empty_argument_is_told(argv, named, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and named in err and "empty" in err


@pytest.mark.parametrize("argv", [
    ["views", "LONG.CR2", "-o", "out"], ["restore", "--left", "l.png", "--right", "r.png", "-o", "LONG.png"],
    ["photographs", "--source", "LONG"], ["test", "-opt", "LONG"], ["compare", "LONG", "center", "--data", "d.lmdb"],
    ["prepare", "pairs", "--source", "LONG", "--out", "o"], ["simulate", "--photos", "LONG", "--out", "s.lmdb"],
    ["export", "LONG", "-o", "net.onnx"], ["release", "LONG", "--name", "x"], ["inspect-kernels", "LONG"]])
def test_a_path_that_no_disk_takes_is_one_line(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("l.png", "r.png"):
        (tmp_path / name).write_bytes(name.encode())
    try:
        status = main([text.replace("LONG", "n" * 300) for text in argv])
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert status == 2 and "error: " in err and "Traceback" not in err


@pytest.mark.parametrize("argv, named", [
    (["center", "other=center", "--choices", "deblur=WienerDeblur"], "--choices"),
    (["center", "other=center", "--seeds", "1", "2"], "--seeds"),
    (["center", "other=center", "--budget", "samples=8"], "--budget"),
    (["center", "other=center", "--set", "manual_seed=1"], "--set")])
def test_compare_refuses_what_nothing_would_come_of(argv, named, capsys, tmp_path):
    assert main(["compare", *argv, "--data", str(tmp_path / "none.lmdb"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {named} ") and not (tmp_path / "out").exists()
