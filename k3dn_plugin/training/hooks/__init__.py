"""What hangs on the loop's named points, one kind of thing a file."""
from k3dn_plugin.training.hooks.checkpoint import CheckpointHook
from k3dn_plugin.training.hooks.log import LogHook, ProgressHook
from k3dn_plugin.training.hooks.records import RecordHook
from k3dn_plugin.training.hooks.tensorboard import TensorBoardHook
from k3dn_plugin.training.hooks.validation import ValidationHook


def default_hooks(options, feed, world, *, progress=False):
    """The hooks of a run in their order: scores come before rows and states, which hold them."""
    hooks = [LogHook()] if world.is_main else []
    if feed.validation is not None:
        hooks.append(ValidationHook(feed.validation, options.val, progress=progress))
    if world.is_main:
        hooks.append(RecordHook())
        if options.logger.use_tb_logger:
            hooks.append(TensorBoardHook())
    hooks.append(CheckpointHook())
    if world.is_main and progress:
        hooks.append(ProgressHook())
    return hooks
