#!/usr/bin/env python3
"""Train a recipe: the same as `k3dn train`, from a checkout that need not be installed."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from k3dn_plugin.commands import tool

main = tool("train")

if __name__ == "__main__":
    raise SystemExit(main())
