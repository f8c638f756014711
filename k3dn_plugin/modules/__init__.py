"""The exchangeable parts of a network, by the paper's stages."""
