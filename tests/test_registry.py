"""Look-ups that fail say what is near and where they looked; arguments are checked before building."""
import pytest

from k3dn_plugin.errors import OptionError, RegistryError
from k3dn_plugin.registry import ARCHS, LOSSES, MODULES, REGISTRIES, ComponentRegistry, list_restorers


def test_a_wrong_name_lists_near_names_and_places():
    with pytest.raises(RegistryError) as failed:
        MODULES.get("KernelSetDebulr")
    message = str(failed.value)
    assert "no module is registered as 'KernelSetDebulr'" in message and "'KernelSetDeblur'" in message
    assert "k3dn_plugin.modules" in message and "k3dn_plugin.components" in message
    assert "custom_imports" in message


def test_a_name_like_no_other_lists_all():
    with pytest.raises(RegistryError, match="Registered: .*L1Loss"):
        LOSSES.get("zzzzzzzz")


@pytest.mark.parametrize("name", sorted(REGISTRIES))
def test_every_registry_has_components_with_a_docstring(name):
    registry = REGISTRIES[name]
    ours = [n for n in registry.names() if getattr(registry.get(n), "__module__", "").startswith("k3dn_plugin.")]
    assert ours
    assert not [n for n in ours if not registry.get(n).__doc__]


def test_scope_prefix_and_patterns():
    assert ARCHS.get("k3dn.K3DN") is ARCHS.get("K3DN")
    assert "K3DN" in list_restorers("k3dn*") and list_restorers("nothing*") == []


@pytest.mark.parametrize("spec, message", [
    ({"window": 3}, "mapping with `type`"),
    ("K3DN", "mapping with `type`"),
    ({"type": "L1Loss", "wieght": 1}, "wieght: is not an argument of L1Loss. Did you mean 'weight'"),
    ({"type": "L1Loss", "weight": "1"}, "weight: expected float, found '1'"),
])
def test_specs_are_checked(spec, message):
    with pytest.raises(OptionError, match=message):
        LOSSES.build(spec)


def test_missing_arguments_are_named():
    with pytest.raises(OptionError, match="ConcatSkip needs the arguments before_channels, after_channels"):
        MODULES.build({"type": "ConcatSkip"})


def test_lists_become_tuples_and_ints_floats():
    seen = {}
    registry = ComponentRegistry("thing", packages=[])

    @registry.register_module()
    class Thing:
        def __init__(self, *, pair: tuple[int, int], scale: float):
            seen.update(pair=pair, scale=scale)
    registry.build({"type": "Thing", "pair": [1, 2], "scale": 3})
    assert seen == {"pair": (1, 2), "scale": 3.0} and isinstance(seen["scale"], float)


def test_registering_twice_is_refused():
    registry = ComponentRegistry("thing", packages=[])
    registry.register_module(name="A", module=dict)
    with pytest.raises(RegistryError, match="'A' already: builtins.dict. Give builtins.list another name"):
        registry.register_module(name="A", module=list)


def test_a_reloaded_file_registers_again():
    registry = ComponentRegistry("thing", packages=[])
    first, second = (type("Thing", (), {"__doc__": doc}) for doc in "ab")
    registry.register_module(module=first)
    registry.register_module(module=second)
    assert registry.get("Thing") is second


def test_names_that_a_component_brings():
    registry = ComponentRegistry("thing", packages=[], named_by="names")
    registry.register_module(module=type("Thing", (), {"names": ("one", "two")}))
    assert registry.names() == ["one", "two"] and registry.get("one") is registry.get("two")
