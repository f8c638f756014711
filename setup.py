"""Builds the wheel. Metadata are in pyproject.toml; this adds the option files and the official lists of data sets.

In a checkout they lie beside the package, where people look for them; an installed copy has them within it
(`k3dn_plugin.files.shared_file` finds either).
"""
from pathlib import Path

from setuptools import find_packages, setup

SHARED = ("options", "datasets")


def shared_packages() -> dict[str, str]:
    """Folders of data, as packages within ours: name -> folder."""
    folders = [Path(kind) for kind in SHARED]
    folders += [folder for kind in SHARED for folder in Path(kind).glob("*")
                if folder.is_dir() and any(any(folder.glob(f"*.{ending}")) for ending in ("yml", "txt"))]
    # Lists, not what lies in data sets that were prepared in the checkout.
    folders.append(Path("datasets/photographs"))
    return {"k3dn_plugin._share." + ".".join(folder.parts): folder.as_posix() for folder in folders}


data = shared_packages()
setup(
    packages=[*find_packages(include=["k3dn_plugin", "k3dn_plugin.*"]), *data],
    package_dir={"": ".", **data},
    package_data={"k3dn_plugin": ["py.typed"], "k3dn_plugin.comparison": ["*.j2", "*.csv"],
                  "k3dn_plugin.inference": ["*.j2"],
                  "k3dn_plugin.zoo": ["released/*"], **{name: ["*.yml", "*.txt"] for name in data},
                  "k3dn_plugin._share.datasets.photographs": ["*.csv"]},
)
