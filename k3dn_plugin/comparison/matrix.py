"""The module matrix: every combination of chosen parts in one recipe (K3DN's ablation, or LDP's by its blur map).

Which parts a restorer has is what its class declares (`slots`); a preservation module can follow any other restorer
too, and a reblur module train beside any.
"""
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from k3dn_plugin.comparison.contestants import Contestant
from k3dn_plugin.errors import OptionError
from k3dn_plugin.options import Options, load_options
from k3dn_plugin.registry import ARCHS, MODULES

OF_ALL = ("preservation", "reblur")  # slots beside any restorer
NONE = "none"


def known_slots() -> tuple[str, ...]:
    """Return the slots that registered restorers declare, then those that all have."""
    return tuple(dict.fromkeys([*(slot for name in ARCHS.names() for slot in getattr(ARCHS.get(name), "slots", ())),
                                *OF_ALL]))


def parse_choices(texts: Sequence[str]) -> dict[str, list[str]]:
    """Parse `deblur=KernelSetDeblur,WienerDeblur` and so on, by slot; `none` leaves the part out, `default` keeps it.

    Raises:
        OptionError: no such slot or module, or a slot named twice.
    """
    choices = {}
    for text in texts:
        slot, equals, names = text.partition("=")
        if slot not in known_slots() or not equals or slot in choices:
            raise OptionError(f"--choices {text}: expected one of {', '.join(f'{s}=A,B' for s in known_slots())}, each "
                              "once")
        choices[slot] = [name.strip() for name in names.split(",") if name.strip()]
        for name in choices[slot]:
            if name not in (NONE, "default"):
                MODULES.get(name)  # a wrong name lists near ones
    if not any(choices.values()):
        raise OptionError("the module matrix needs --choices, e.g. deblur=KernelSetDeblur,WienerDeblur")
    return choices


def matrix_of(path: str | Path, choices: dict[str, list[str]], overrides: Sequence[str] = ()) -> list[Contestant]:
    """Return a contestant for every combination.

    Choices go into the slots that the recipe's restorer declares. Without one for it, a preservation module follows the
    restorer at image level (`PreservedRestorer`); a reblur module trains beside it.

    Raises:
        OptionError: a slot that the recipe's restorer does not have.
    """
    base = load_options(path, overrides)
    slots = getattr(ARCHS.get(base.network_g["type"]), "slots", ())
    for slot in choices:
        if slot not in (*slots, *OF_ALL):
            raise OptionError(f"{path}: {base.network_g['type']} has no slot {slot!r}; of it can be chosen "
                              f"{', '.join(dict.fromkeys([*slots, *OF_ALL]))}")
    found = []
    for names in itertools.product(*choices.values()):
        chosen = dict(zip(choices, names))
        label = " + ".join(f"no {slot}" if name == NONE else name for slot, name in chosen.items()
                           if name != "default") or base.name
        extra = _network_overrides(chosen, base, slots)
        if _cannot_reblur(chosen, base):
            chosen["reblur"] = NONE
            label += " (cannot reblur)"
        extra += _reblur_overrides(chosen.get("reblur", "default"), base)
        # Stages freeze parts that a combination may not have; all parts are trained together instead.
        found.append(Contestant(label, recipe=path, overrides=(*overrides, "train.stages=null", *extra)))
    return found


def _cannot_reblur(chosen: dict[str, str], base: Options) -> bool:
    """Whether the reblur module reverses the deblur module (it declares so), and the chosen one can't run backwards."""
    reblur = chosen.get("reblur", "default")
    kept = (base.training.reblur or {}).get("type") if reblur == "default" else reblur
    deblur = chosen.get("deblur", "default")
    if kept in (None, NONE) or deblur == "default" or not getattr(MODULES.get(kept), "reverses_deblur", False):
        return False
    return deblur == NONE or not MODULES.get(deblur).reversible


def _network_overrides(chosen: dict[str, str], base: Options, slots: tuple[str, ...]) -> list[str]:
    """Overrides that put the chosen parts into the restorer's slots, or a preservation module after it."""
    network = dict(base.network_g)
    for slot in slots:
        if chosen.get(slot, "default") != "default":
            own = network.get(slot) or {}
            # The recipe's own part keeps its settings; another one has its defaults.
            network[slot] = None if chosen[slot] == NONE else own if own.get("type") == chosen[slot] else {
                "type": chosen[slot]}
    after = chosen.get("preservation", "default")
    if "preservation" not in slots and after not in ("default", NONE):
        network = {"type": "PreservedRestorer", "restorer": network, "preservation": {"type": after}}
    return [] if network == base.network_g else [f"network_g={json.dumps({'_delete_': True, **network})}"]


def _reblur_overrides(name: str, base: Options) -> list[str]:
    """Overrides that train a reblur module beside the restorer, or leave it out."""
    if name == "default":
        return []
    if name == NONE:
        losses = {key: spec for key, spec in base.training.losses.items() if spec["type"] != "ReblurConsistency"}
        return ["train.reblur=null", f"train.losses={json.dumps({'_delete_': True, **losses})}"]
    texts = [f"train.reblur={json.dumps({'type': name})}"]
    if not any(one["type"] == "ReblurConsistency" for one in base.training.losses.values()):
        texts.append('train.losses.reblur={"type": "ReblurConsistency", "weight": 0.5}')
    return texts
