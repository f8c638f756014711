"""Restore photographs on a page in the browser: drop files, compare before and after, download.

    k3dn app                                  # needs the extra [app]: pip install 'k3dn_plugin[app]'
    k3dn app --weights experiments/k3dn_demo/models/best.safetensors

The page is served to this machine alone (127.0.0.1), and nothing leaves it. Ctrl-C ends it.
"""
import argparse
import time

from k3dn_plugin.commands._inference import add_inference_arguments, load_as_asked
from k3dn_plugin.commands._numbers import whole

GROUP = "photographs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--weights", action="append", default=[], metavar="WEIGHTS",
                        help="a name or file to choose on the page, beside those that come with the package; may be "
                             "given several times, the first is the choice at the start")
    parser.add_argument("--port", type=whole(1, 65535), metavar="N", help="default: the first free one from 7860")
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="do not open the page")
    add_inference_arguments(parser, progress=False)


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments and return the exit status."""
    # Imported here, because torch and gradio take seconds and --help should not.
    from k3dn_plugin.bridges.gradio_page import served_page
    from k3dn_plugin.inference.device import choose_device
    from k3dn_plugin.zoo.baseline import DO_NOTHING
    from k3dn_plugin.zoo.weights import read_weights

    choose_device(arguments.device)
    for source in arguments.weights:
        if source != DO_NOTHING:
            read_weights(source)   # told now, and not on the page to whoever chooses it there
    with served_page(weights=arguments.weights, load=lambda source: load_as_asked(source, arguments),
                     port=arguments.port, open_browser=arguments.browser) as address:
        print(f"{address}\nserved to this machine alone; Ctrl-C ends it", flush=True)
        while True:
            time.sleep(3600)
