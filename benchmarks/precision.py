"""How near each restorer stays to its float32 output in bfloat16: `python benchmarks/precision.py`.

Every registered restorer in its default (published) settings restores one pair (a photograph of scikit-image, its views
blurred and shifted against each other), in float32 and under autocast; the PSNR between the two outputs decides what
`--precision auto` takes (55 dB, `RestorerCard.bfloat16_is_faithful`), and stands on the card.

There are no trained weights of all of them, so weights are those of the constructor (seed 0), each parameter moved by
normal noise of a tenth of its own spread, since some start at zero and would hide what they multiply. Such a network's
contribution to the image has no natural size, and an error is as large as what it is an error of. So the contribution
is taken to a trained network's size, and the error with it: to `RESIDUAL`, what the network changes of the nearest
view, where it adds to one, and to `PICTURE`, the spread of its output, where it predicts the image itself. Which of the
two it does shows when its convolutions to three channels are set to zero: a plain color is left, or an image. Columns:
`contribution` as found, and `scaled_to`.
"""
import argparse
import math
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.restorers import chosen
from benchmarks.table import RESULTS, save, show
from k3dn_plugin.commands import run_tool

RESIDUAL = 0.064   # the root mean square between blurred and sharp images of DPDD's test set (23.89 dB)
PICTURE = 0.25     # the spread of a photograph's values
NOISE = 0.1
BEST_DB = 99.0     # what equal outputs are called


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="names or patterns")
    parser.add_argument("--size", type=int, default=128, help="side of the pair, padded to what the network takes")
    parser.add_argument("--keep", metavar="REGEX", help="keep parts whose names match in float32, to find what matters "
                                                        "(Restormer: attn, ffn, norm)")
    parser.add_argument("--csv", default=RESULTS / "precision.csv", metavar="FILE")
    arguments = parser.parse_args(argv)
    rows = []
    for name in chosen(arguments.only):
        rows.append(measure(name, arguments.size, arguments.keep))
        print(rows[-1], file=sys.stderr, flush=True)
    show(rows)
    save(rows, arguments.csv)


def measure(name, side, keep=None):
    """Return the row of one restorer."""
    import torch
    restorer = perturbed(name)
    pair = blurred_pair(*restorer.size_rule.padded(side, side))
    if keep:
        for part, module in restorer.named_modules():
            if part and re.search(keep, part):
                keep_in_float32(module)
    with torch.no_grad():
        began = time.process_time()
        full = restorer(pair)
        middle = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            half = restorer(pair).float()
        ended = time.process_time()
        contribution, goal = size_of_contribution(restorer, pair, full)
    error = (half - full).pow(2).mean().sqrt().item() * goal / contribution
    decibel = BEST_DB if error == 0 else min(-20 * math.log10(error), BEST_DB)
    return {"restorer": name, "pair": "{} x {}".format(*pair.shape[-2:]), "bfloat16_db": round(decibel, 1),
            "contribution": round(contribution, 4), "scaled_to": goal,
            "times_faster_cpu": round((middle - began) / (ended - middle), 2)}


def perturbed(name):
    """Build a restorer in its default settings, with noise on all parameters."""
    import torch

    from benchmarks.restorers import build
    restorer = build(name, "cpu")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in restorer.parameters():
            spread = parameter.std().item() if parameter.numel() > 1 else 0.0
            parameter += NOISE * (spread or NOISE) * torch.randn(parameter.shape, generator=generator)
    return restorer


def keep_in_float32(module):
    import torch
    inner = module.forward

    def forward(*arguments, **named):
        with torch.autocast("cpu", enabled=False):
            return inner(*(widened(value) for value in arguments),
                         **{key: widened(value) for key, value in named.items()})

    def widened(value):
        return value.float() if torch.is_tensor(value) and value.dtype == torch.bfloat16 else value
    module.forward = forward


def blurred_pair(rows, columns):
    import skimage
    import torch
    import torch.nn.functional as F
    photograph = torch.from_numpy(skimage.data.astronaut()[..., :3].copy()).permute(2, 0, 1)[None] / 255
    image = photograph[..., 80:80 + rows, 120:120 + columns] if rows <= 400 and columns <= 390 else F.interpolate(
        photograph, (rows, columns), mode="bilinear")
    blurred = F.avg_pool2d(F.pad(image, (3, 3, 3, 3), mode="reflect"), 7, 1)
    return torch.cat([blurred.roll(-2, -1), blurred.roll(2, -1)], 1)


def size_of_contribution(restorer, pair, full):
    """Return the root mean square of what the network makes of the output, and what it is to be scaled to."""
    from torch import nn
    last = [module for module in restorer.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
            and module.out_channels == 3]
    views = {"left": pair[:, :3], "right": pair[:, 3:], "center": (pair[:, :3] + pair[:, 3:]) / 2}
    change = min((full - view).pow(2).mean().sqrt().item() for view in views.values())
    for module in last:
        module.weight.zero_()
        if module.bias is not None:
            module.bias.zero_()
    predicts_all = last and restorer(pair).std(dim=(-2, -1)).max() < 0.02
    return (full.std().item(), PICTURE) if predicts_all else (change, RESIDUAL)


if __name__ == "__main__":
    raise SystemExit(run_tool(main))
