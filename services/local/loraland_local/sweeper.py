"""The last one out: kills what is left of a stack whose supervisor is gone.

Standard input is a pipe that only the supervisor holds. Its end means that the supervisor has ended,
in whatever way; processes that do not follow it within the grace period are killed.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

GRACE_S = 10.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="loraland_local.sweeper")
    parser.add_argument("--state", type=Path, required=True)
    arguments = parser.parse_args()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while os.read(sys.stdin.fileno(), 4096):
        pass
    # Imported late: the sweeper waits for hours, and should weigh nothing until then.
    from loraland_local import processes  # noqa: PLC0415

    processes.sweep(arguments.state, grace_s=GRACE_S)


if __name__ == "__main__":
    main()
