"""Where Chromium is: for the pictures of figures, for the browser tests and for screenshots."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
REMEDY = "Chromium is missing: apt-get install chromium, or set BROWSER_PATH to its program"


def find() -> str | None:
    candidates = [os.environ.get("BROWSER_PATH"), *NAMES]
    return next((path for name in candidates if name and (path := shutil.which(name))), None)
