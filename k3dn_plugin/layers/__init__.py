"""Building blocks and operators that several components share."""
