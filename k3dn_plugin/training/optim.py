"""Optimisers: any of torch.optim by name, its arguments checked against its signature."""
import inspect
import types
import typing

import torch

from k3dn_plugin.errors import OptionError
from k3dn_plugin.signatures import conform, near


def check_optimizer(spec, where="train.optim_g"):
    """`(class, arguments)` for `spec`, a mapping with `type` and the optimiser's own arguments.

    Raises:
        OptionError: no such optimiser; an argument that it does not have, lacks or has as another type.
    """
    known = {name: cls for name, cls in vars(torch.optim).items()
             if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)
             and cls not in (torch.optim.Optimizer, torch.optim.LBFGS)}  # LBFGS wants a closure
    name = spec.get("type")
    if name not in known:
        raise OptionError(f"{where}.type: no optimiser of torch.optim is called {name!r}."
                          f"{near(name, known)} Known: {', '.join(sorted(known))}")
    cls = known[name]
    parameters = {n: p for n, p in inspect.signature(cls.__init__).parameters.items()
                  if n not in ("self", "params")}
    hints = typing.get_type_hints(cls.__init__)
    arguments = {}
    for key, value in spec.items():
        if key == "type":
            continue
        if key not in parameters:
            raise OptionError(f"{where}.{key}: is not an argument of {name}.{near(key, parameters)} "
                              f"Arguments: {', '.join(parameters)}")
        arguments[key] = conform(value, _without_tensors(hints.get(key, object)), f"{where}.{key}")
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in arguments]
    if missing:
        raise OptionError(f"{where}: {name} needs {', '.join(missing)}")
    return cls, arguments


def build_optimizer(spec, parameters, where="train.optim_g"):
    """The optimiser that `spec` describes, over `parameters`.

    Raises:
        OptionError: as `check_optimizer`, or a value that the optimiser refuses (a negative lr).
    """
    cls, arguments = check_optimizer(spec, where)
    try:
        return cls(parameters, **arguments)
    except ValueError as error:
        raise OptionError(f"{where}: {cls.__name__} refuses {arguments}: {error}") from None


def _without_tensors(annotation):
    """`float | Tensor` -> `float`, also inside tuples: a YAML file holds no tensors."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_without_tensors(a) for a in inner if a is not torch.Tensor)]
    if origin is tuple:
        return tuple[tuple(a if a is ... else _without_tensors(a) for a in inner)]
    return annotation
