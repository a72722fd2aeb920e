"""Generate the gRPC stubs in this folder from ``protos/``: ``python -m loraland_core.rpc.generate``.

Wants the development dependencies. The stubs are committed; a test holds them to their sources.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path("loraland/inference/v1")
HERE = Path(__file__).parent
PROTOS = HERE.parents[3] / "protos"


def generate(protos: Path) -> dict[str, str]:
    """Return the stubs, file name → content, for the contract below ``protos``."""
    sources = sorted((protos / PACKAGE).glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "grpc_python")]
        stubs = [f"--{kind}_out=quiet:{folder}" for kind in ("mypy", "mypy_grpc")]
        scripts = Path(sys.executable).parent
        plugins = [
            f"--plugin=protoc-gen-{kind}={scripts / f'protoc-gen-{kind}'}"
            for kind in ("mypy", "mypy_grpc")
        ]
        subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"-I{protos}",
                *plugins,
                *outputs,
                *stubs,
                *map(str, sources),
            ],
            check=True,
            timeout=120,
        )
        return {
            path.name: _moved(path.read_text())
            for path in sorted((Path(folder) / PACKAGE).iterdir())
        }


def _moved(code: str) -> str:
    """Let the stubs import each other from where they are kept."""
    code = re.sub(r"from loraland\.inference\.v1 import", "from loraland_core.rpc import", code)
    return re.sub(r"loraland\.inference\.v1\.(\w+_pb2)", r"loraland_core.rpc.\1", code)


def main() -> None:
    for name, code in generate(PROTOS).items():
        (HERE / name).write_text(code)


if __name__ == "__main__":
    main()
