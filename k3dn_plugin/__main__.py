"""`python -m k3dn_plugin` is the command `k3dn`, where no folder of commands is on the path."""
import sys

from k3dn_plugin.commands import main

sys.exit(main())
