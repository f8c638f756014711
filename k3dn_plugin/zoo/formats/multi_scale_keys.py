"""Official key names that DeepRFT and SFNet share: both are MIMO-UNets, with three scales in and three out."""
SCALES = (("1", "quarter"), ("2", "half"))  # the published numbers run against the scales


def multi_scale_pairs() -> dict[str, str]:
    """Return official prefix -> ours of what lies around the stages. `main.0` is a unit's convolution."""
    pairs = {f"feat_extract.{i}.main.0": f"extract.{i}" for i in range(3)}
    for i in range(2):
        pairs[f"feat_extract.{i + 3}.main.0"] = f"up.{i}"
        pairs[f"Convs.{i}.main.0"] = f"reduce.{i}"
        pairs[f"ConvsOut.{i}.main.0"] = f"out.{i}"
    pairs["feat_extract.5.main.0"] = "out.2"
    return pairs
