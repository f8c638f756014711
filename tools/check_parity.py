#!/usr/bin/env python3
"""Compare a network with published outputs: `k3dn check-parity`, from a checkout that need not be installed."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from k3dn_plugin.commands import tool

main = tool("check-parity")

if __name__ == "__main__":
    raise SystemExit(main())
