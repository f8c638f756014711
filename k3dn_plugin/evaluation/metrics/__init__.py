"""The metrics, one file a kind, registered by name in `METRICS`."""
