"""The operator as it is, with the points of ``points`` below it."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import points
from loraland_operator.main import main

if __name__ == "__main__":
    points.install(
        points.Points(Path(os.environ["CRASH_RECORD"]), os.environ.get("CRASH_POINT", ""))
    )
    sys.exit(main())
