"""The browser of tests that need a real one."""

import shutil

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
"""Empty where there is none; then `conftest` leaves those tests out and says so."""
