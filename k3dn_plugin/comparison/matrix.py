"""The module matrix: every combination of chosen parts in one recipe (K3DN's ablation)."""
import itertools
import json

from k3dn_plugin.comparison.contestants import Contestant
from k3dn_plugin.errors import OptionError
from k3dn_plugin.options import load_options
from k3dn_plugin.registry import ARCHS, MODULES

SLOTS = ("disparity", "deblur", "reblur", "preservation")
NONE = "none"


def parse_choices(texts) -> dict[str, list[str]]:
    """`deblur=KernelSetDeblur,WienerDeblur` and so on, by slot; `none` leaves the part out, `default` keeps it.

    Raises:
        OptionError: no such slot or module, or a slot named twice.
    """
    choices = {}
    for text in texts:
        slot, equals, names = text.partition("=")
        if slot not in SLOTS or not equals or slot in choices:
            raise OptionError(f"--choices {text}: expected one of {', '.join(f'{s}=A,B' for s in SLOTS)}, each once")
        choices[slot] = [name.strip() for name in names.split(",") if name.strip()]
        for name in choices[slot]:
            if name not in (NONE, "default"):
                MODULES.get(name)  # a wrong name lists near ones
    if not any(choices.values()):
        raise OptionError("the module matrix needs --choices, e.g. deblur=KernelSetDeblur,WienerDeblur")
    return choices


def matrix_of(path, choices: dict[str, list[str]], overrides=()) -> list[Contestant]:
    """A contestant for every combination.

    In a recipe of K3DN disparity, deblur and preservation go into its slots. Any other restorer keeps itself; a
    preservation module follows it at image level (`PreservedRestorer`), and a reblur module trains beside it.

    Raises:
        OptionError: a slot that the recipe's restorer does not have.
    """
    base = load_options(path, overrides)
    slotted = {"disparity", "deblur", "preservation"} <= set(ARCHS.get(base.network_g["type"]).__init__.__kwdefaults__)
    for slot in ("disparity", "deblur"):
        if slot in choices and not slotted:
            raise OptionError(f"{path}: {base.network_g['type']} has no slot {slot!r}; of other restorers, only "
                              "preservation and reblur can be chosen")
    found = []
    for names in itertools.product(*choices.values()):
        chosen = dict(zip(choices, names))
        label = " + ".join(f"no {slot}" if name == NONE else name for slot, name in chosen.items()
                           if name != "default") or base.name
        extra = [text for slot, name in chosen.items() for text in _overrides(slot, name, base, slotted)]
        if _cannot_reblur(chosen, base):
            extra += _overrides("reblur", NONE, base, slotted)
            label += " (cannot reblur)"
        # Stages freeze parts that a combination may not have; all parts are trained together instead.
        found.append(Contestant(label, recipe=path, overrides=(*overrides, "train.stages=null", *extra)))
    return found


def _cannot_reblur(chosen, base):
    """Whether the recipe reverses its deblur module, and the chosen one cannot run backwards."""
    reblur = chosen.get("reblur", "default")
    kept = (base.train.reblur or {}).get("type") if reblur == "default" else reblur
    deblur = chosen.get("deblur", "default")
    if kept != "KernelSetReblur" or deblur == "default":
        return False
    return deblur == NONE or not MODULES.get(deblur).reversible


def _overrides(slot, name, base, slotted):
    if name == "default":
        return []
    if slot == "reblur":
        if name == NONE:
            losses = {key: spec for key, spec in base.train.losses.items() if spec["type"] != "ReblurConsistency"}
            return ["train.reblur=null", f"train.losses={json.dumps({'_delete_': True, **losses})}"]
        spec = {"type": name}
        texts = [f"train.reblur={json.dumps(spec)}"]
        if not any(one["type"] == "ReblurConsistency" for one in base.train.losses.values()):
            texts.append('train.losses.reblur={"type": "ReblurConsistency", "weight": 0.5}')
        return texts
    if slotted:
        spec = "null" if name == NONE else json.dumps({"type": name})
        return [f"network_g.{slot}={spec}"]
    if name == NONE:
        return []
    wrapped = {"_delete_": True, "type": "PreservedRestorer", "restorer": base.network_g,
               "preservation": {"type": name}}
    return [f"network_g={json.dumps(wrapped)}"]
