"""The exponential moving average of the weights."""
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def moving_average(restorer, decay):
    """torch's `AveragedModel` of `restorer`, its floating-point buffers included; None if `decay` is 0.

    ema <- decay * ema + (1 - decay) * weights after every iteration; the first one copies.
    """
    if decay == 0:
        return None
    average = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(averaged, current, count):
        if averaged[0].is_floating_point() or averaged[0].is_complex():
            average(averaged, current, count)
        else:
            # torch would compute 0.999 * 7 + 0.001 * 7 and round it down to 6: an index table (or the
            # counter of a batch norm) has to be copied.
            for target, source in zip(averaged, current):
                target.copy_(source)

    return AveragedModel(restorer, multi_avg_fn=update, use_buffers=True).requires_grad_(False)
