"""llama.cpp's own HTTP server as a process of its own, out of the `xllamacpp` wheel: what local inference is measured beside.

python -m tests.bench.yardstick_server --model FILE --port P --threads T --context CELLS --slots N
"""

from __future__ import annotations

import argparse
import signal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--context", type=int, required=True, help="cells for all slots together")
    parser.add_argument("--slots", type=int, required=True)
    given = parser.parse_args()
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = given.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = given.port
    parameters.cpuparams.n_threads = given.threads
    parameters.cpuparams_batch.n_threads = given.threads
    parameters.n_ctx = given.context
    parameters.n_parallel = given.slots
    parameters.kv_unified = True
    parameters.cont_batching = True
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
