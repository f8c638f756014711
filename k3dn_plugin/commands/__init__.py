"""The console command `k3dn`: one file a subcommand, found by its name; `tools/*.py` call the same."""
from k3dn_plugin.commands._console import build_parser, commands, main, tool
from k3dn_plugin.errors import run_tool

__all__ = ["build_parser", "commands", "main", "run_tool", "tool"]
