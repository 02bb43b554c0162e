"""Generated examples are the same in every run, so that what turned red once stays red; `make proof` looks for new ones."""

from __future__ import annotations

import os

from hypothesis import settings
from tests.rig.eventually import FIGURES

settings.register_profile("same-every-time", derandomize=True, deadline=None)
settings.register_profile("new-every-time", deadline=None)
settings.load_profile("new-every-time" if os.environ.get(FIGURES) else "same-every-time")
