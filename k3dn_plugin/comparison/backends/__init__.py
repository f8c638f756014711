"""Where jobs run, one file a back end (`comparison/jobs.py` says what one does)."""
