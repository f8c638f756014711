"""What every command-line tool shares: a clear last line instead of a traceback."""
import os
import sys

from k3dn_plugin.errors import K3DNError


def run_tool(main, argv=None):
    """Run `main(argv)` and return the process's exit status.

    A `K3DNError` is printed as one `error:` message (the traceback too, when `K3DN_TRACEBACK=1`);
    Ctrl-C ends with status 130; a closed pipe (`| head`) ends quietly.
    """
    try:
        return main(argv) or 0
    except K3DNError as error:
        if os.environ.get("K3DN_TRACEBACK") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
