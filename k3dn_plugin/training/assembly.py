"""Everything that one stage trains with, built from its options and filled from a state or a stage before."""
from torch import nn

from k3dn_plugin.registry import ARCHS, LOSSES, MODULES
from k3dn_plugin.training import randomness
from k3dn_plugin.training.averaging import moving_average
from k3dn_plugin.training.graph import TrainingGraph
from k3dn_plugin.training.optim import build_optimizer
from k3dn_plugin.training.precision import Precision
from k3dn_plugin.training.schedule import build_schedule
from k3dn_plugin.training.stages import carried_weights, load_carried
from k3dn_plugin.zoo.weights import load_pretrained


class Assembly:
    """Graph, optimiser, schedule, moving average and precision of one stage.

    Args:
        stage: the `Stage`.
        options: of the run.
        world: this process's `World`.
        previous: the training state that the stage before ended with, or None.
        warn: called with a message about weights that `path.strict_load_g: false` leaves out.
    """

    def __init__(self, stage, options, world, *, previous=None, warn=print):
        # Seeded a stage, so that a stage starts alike whether or not the run was interrupted before it.
        seed = options.manual_seed + stage.index
        randomness.seed_everything(seed)
        restorer = ARCHS.build(stage.network_g)
        self.graph = TrainingGraph(
            restorer, trainable=stage.trainable,
            losses={name: LOSSES.build(spec) for name, spec in stage.losses.items()},
            reblur=MODULES.build(stage.reblur) if stage.reblur else None)
        if previous is not None:
            load_carried(self.graph, carried_weights(previous), stage, f"stage {previous['stage_name']!r}")
        elif stage.index == 0 and options.path.pretrain_network_g is not None:
            left = load_pretrained(options.path.pretrain_network_g, restorer,
                                   strict=options.path.strict_load_g, network_g=stage.network_g)
            for line in left:
                warn(f"path.pretrain_network_g: {line}")
        if stage.reblur and not any("reblur" in str(spec).lower() for spec in stage.losses.values()):
            warn(f"train.reblur: {stage.reblur['type']} is computed, but no loss of stage {stage.name!r} reads what it "
                 "gives; add one: --set train.losses.reblur.type=ReblurConsistency")
        if world.size > 1 and world.device.type == "cuda":
            # On the CPU torch has no synchronised batch norm: statistics are then those of each process.
            self.graph = nn.SyncBatchNorm.convert_sync_batchnorm(self.graph)
        self.graph.to(world.device).train()
        if options.train.compile:
            self.graph.compile()
        self.restorer = self.graph.restorer
        self.precision = Precision(options.train.amp, world.device)
        self.parameters = self.graph.trained_parameters()
        self.optimizer = build_optimizer(stage.optim_g, self.parameters)
        self.scheduler = build_schedule(stage.scheduler, self.optimizer, total_iter=stage.total_iter,
                                        warmup_iter=stage.warmup_iter)
        self.ema = moving_average(self.restorer, stage.ema_decay)
        self.model = world.wrap(self.graph)
        # Processes share their initial weights, not their dropout.
        randomness.seed_everything(seed + 1000 * world.rank)

    @property
    def validated(self):
        """The restorer that is validated and published: the moving average where there is one."""
        return self.restorer if self.ema is None else self.ema.module

    def state_dict(self):
        """The entries of a training state that belong to the stage's objects."""
        return {
            "restorer": self.restorer.state_dict(),
            "reblur": None if self.graph.reblur is None else self.graph.reblur.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "ema_updates": 0 if self.ema is None else int(self.ema.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
        }

    def load_state_dict(self, state):
        """Continue from the entries that `state_dict` gave."""
        self.restorer.load_state_dict(state["restorer"])
        if self.graph.reblur is not None:
            self.graph.reblur.load_state_dict(state["reblur"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
            self.ema.n_averaged.fill_(state["ema_updates"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.precision.scaler.load_state_dict(state["scaler"])

    def not_finite(self):
        """The name of the first weight that holds NaN or infinity, or None."""
        named = [*self.graph.named_parameters(), *self.graph.named_buffers()]
        return next((name for name, tensor in named if not tensor.isfinite().all()), None)
