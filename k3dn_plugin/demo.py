"""`make demo`: from photographs to a restored held-out scene, step by step; what is done already is kept."""
from collections.abc import Sequence
from pathlib import Path

from k3dn_plugin.console import command_line
from k3dn_plugin.errors import OptionError
from k3dn_plugin.evaluation.run import evaluate_weights, scored_dataset
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import PROTOCOLS
from k3dn_plugin.simulation.demo import build_demo
from k3dn_plugin.training import train


def run_demo(*, option_file: str = "options/k3dn_demo.yml", data: str = "datasets/demo",
             overrides: Sequence[str] = ()) -> int:
    """Make the demo's data, train, score on the held-out scene, write pictures, say what comes next.

    Returns:
        0 if the restored pictures score above the blurred input, 130 if training was stopped, else 1.

    Raises:
        K3DNError: a step failed; the message says which file and what to do. Steps done before stay done.
    """
    options = load_options(option_file, [f"datasets.train.store={data}/train.lmdb",
                                         f"datasets.val.store={data}/val.lmdb", *overrides])
    if options.train is None:
        raise OptionError(f"{option_file}: has no `train`; the demo trains a network first")
    print(f"1/3  making dual-pixel pairs from photographs: {data}", flush=True)
    train_store, val_store = build_demo(data)
    print(f"     {len(train_store.names)} scenes to train on, {len(val_store.names)} of another scene held out; "
          f"look at {Path(data) / 'train.png'}", flush=True)
    print(f"2/3  training {options.name}, {options.train.total_iter} iterations", flush=True)
    run = train(options, resume="auto")
    if not run.finished:
        return 130
    print("3/3  scoring the held-out scene", flush=True)
    out = Path("results") / options.name
    result = evaluate_weights(run.best_weights or run.last_weights, scored_dataset(options),
                              PROTOCOLS.build({"type": options.val.protocol}), out_dir=out, save_pictures=3)
    print(result.table())
    means = result.summary()["means"]
    gain = means["psnr"] - means["input_psnr"]
    print(f"\nheld-out PSNR {means['psnr']:.2f} dB, {gain:+.2f} dB against the blurred center view")
    print(f"pictures (input, restored, truth): {result.pictures[0].parent}/")
    print(f"curves: tensorboard --logdir {run.folder / 'tb'}")
    print("next, with a photograph of your own (two views, or one raw file; docs/restore.md):\n"
          f"  {command_line('restore')} --left L.png --right R.png -o sharp.png --preview --html "
          f"--weights {run.best_weights}\n"
          f"  {command_line('restore')} photo.CR2 -o sharp.png --preview --html --weights {run.best_weights}\n"
          "or K3DN at full size on DPDD:\n"
          f"  {command_line('prepare')} dpdd --source <dd_dp_dataset_canon> --out datasets/dpdd\n"
          f"  {command_line('train')} -opt options/k3dn_dpdd.yml")
    return 0 if gain > 0 else 1
