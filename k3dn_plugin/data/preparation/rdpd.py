"""RDPD's synthetic sequences (Abuolaim et al., ICCV 2021), rendered by users from SYNTHIA-SF."""
from pathlib import Path

from k3dn_plugin.data.preparation.base import Preparer, SceneFiles, Split
from k3dn_plugin.data.preparation.files import list_view, match_views
from k3dn_plugin.data.preparation.single_images import how_many
from k3dn_plugin.errors import DataError
from k3dn_plugin.registry import PREPARERS

OFFICIAL = {"train": 2023, "val": None, "test": 201}
VIEWS = {"left": "{split}_l/source", "right": "{split}_r/source", "center": "{split}_c/source",
         "sharp": "{split}_c/target"}


@PREPARERS.register_module()
class RDPDSequences(Preparer):
    """Scenes are frames, `seq_NNN/FRAME`, whose sorted order is that of the sequence."""

    name = "rdpd"
    title = "RDPD's synthetic sequences (dd_dp_dataset_synth_vid): 8-bit PNG"
    tree = ("  SOURCE/{train,val,test}_{l,r,c}/source/seq_NNN/FRAME.png    left, right, combined views\n"
            "  SOURCE/{train,val,test}_c/target/seq_NNN/FRAME.png          all in focus")
    bits = 8
    facts = {"source": "Abuolaim et al., Learning to Reduce Defocus Blur by Realistically Modeling Dual-Pixel "
                       "Data, ICCV 2021; rendered from SYNTHIA-SF", "licence": "as SYNTHIA-SF",
             "sequences": True}

    def find(self, source: Path) -> list[Split]:
        """Return the splits whose folders are there."""
        root = next((r for r in (source, source / "dd_dp_dataset_synth_vid")
                     if any((r / f"{split}_{v}").is_dir() for split in OFFICIAL for v in "lrc")), None)
        if root is None:
            raise self.missing(source)
        return [self._split(split, root) for split in OFFICIAL
                if any((root / f"{split}_{v}").is_dir() for v in "lrc")]

    def _split(self, split: str, root: Path) -> Split:
        folders = {view: root / place.format(split=split) for view, place in VIEWS.items()}
        sequences = {}
        for view, folder in folders.items():
            if not folder.is_dir():
                raise DataError(f"there is no folder {folder}, which should hold the {view} sequences (seq_NNN)")
            sequences[view] = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir()}
            if not sequences[view]:
                raise DataError(f"{folder}: expected one folder a sequence (seq_NNN), found none")
        scenes = []
        for sequence in match_views(sequences):
            files = {view: list_view(sequences[view][sequence], view) for view in VIEWS}
            scenes += [SceneFiles(f"{sequence}/{frame}", {view: files[view][frame] for view in files},
                                  {"sequence": sequence, "frame": number})
                       for number, frame in enumerate(match_views(files))]
        notes = how_many(len(scenes), OFFICIAL[split], "frames") if OFFICIAL[split] else []
        return Split(split, scenes, notes=notes)
