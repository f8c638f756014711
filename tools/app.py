#!/usr/bin/env python3
"""Restore photographs on a page in the browser: the same as `k3dn app`, from a checkout that need not be installed."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from k3dn_plugin.commands import tool

main = tool("app")

if __name__ == "__main__":
    raise SystemExit(main())
