"""What somebody may ask of a stack. Pure data."""

import dataclasses
from pathlib import Path

# How the supervisor ends; it may not be able to write down why.
EXIT_FAILED = 1
EXIT_DISK_FULL = 4


@dataclasses.dataclass(frozen=True)
class StackOptions:
    """The supervisor's options; 0 leaves a port to the stack."""

    state: Path
    api_port: int = 0
    grpc_port: int = 0
    # Stop when the process at the other end of standard input ends.
    stop_with_stdin: bool = False

    def to_arguments(self) -> list[str]:
        """Return the options as the supervisor's command line takes them."""
        return [
            *("--state", str(self.state)),
            *("--api-port", str(self.api_port)),
            *("--grpc-port", str(self.grpc_port)),
            *(["--stop-with-stdin"] if self.stop_with_stdin else []),
        ]
