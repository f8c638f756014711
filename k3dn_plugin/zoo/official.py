"""The format of a published checkpoint under the name that packages outside of this one imported it by."""
from k3dn_plugin.zoo.formats.base import OfficialNetwork, load_strictly, official_format

__all__ = ["OfficialNetwork", "load_strictly", "official_format"]
