"""Pages in a headless Chromium, where there is one."""
import shutil
import subprocess

import pytest

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))),
               None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt install chromium")


def browse(*arguments, profile):
    """Run Chromium without a window; `profile` is a folder for what it keeps."""
    return subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                           "--disable-background-networking", "--disable-component-update", "--disable-sync",
                           f"--user-data-dir={profile}", "--window-size=1280,2400", *arguments],
                          capture_output=True, text=True, timeout=120)
