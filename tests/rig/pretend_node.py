"""Stands in for a node where the rig itself is tested: it takes the same command line and misbehaves as told by `PRETEND`."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn


class Doors(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = 503 if "never-ready" in os.environ.get("PRETEND", "") else 200
        body = json.dumps({"ready": status == 200, "reasons": [], "argv": sys.argv[1:], "path": self.path, "cwd": os.getcwd()}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def leave(number: int, frame: FrameType | None) -> NoReturn:
    print("goodbye", flush=True)
    raise SystemExit(0)


if __name__ == "__main__":
    pretend = os.environ.get("PRETEND", "")
    print("pretending", pretend, flush=True)
    if "dies" in pretend:
        raise SystemExit(78)
    if "has-a-child" in pretend:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in pretend else leave)
    host, port = sys.argv[sys.argv.index("--api") + 1].split(":")
    http.server.ThreadingHTTPServer((host, int(port)), Doors).serve_forever()
