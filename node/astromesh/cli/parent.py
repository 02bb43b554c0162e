"""A node that must not outlive the process that started it, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from astromesh.errors import ConfigurationError

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def end_with_parent(pid: int) -> None:
    """From now on the end of process `pid`, our parent, is a SIGTERM for us. The kernel sends it, so a SIGKILL of the parent counts too.

    Raises `ConfigurationError` where `pid` is not our parent, or is gone already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # After the call, so that no moment is left in which it could end unnoticed.
    if os.getppid() != pid:
        raise ConfigurationError(f"process {pid}, with which this node was to end, is not its parent", hint="leave --ends-with out")
