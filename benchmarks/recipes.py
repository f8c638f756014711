"""The networks of recipes, as the benchmarks measure them."""


def network_of(recipe):
    """Build the network of a recipe, by the name of a shipped one or by its file, with the random weights of seed 0."""
    import torch

    from k3dn_plugin.options import load_options
    from k3dn_plugin.registry import ARCHS
    torch.manual_seed(0)
    return ARCHS.build(load_options(recipe).network_g)
