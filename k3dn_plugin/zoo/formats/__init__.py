"""How published checkpoints map onto ours, one file a family of networks."""
