"""Building blocks and operators that several modules and networks share."""
