"""What a size has cost the operator, and how it is shown. No I/O but printing."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

# Wide enough for the table, wherever it is printed.
console = Console(width=140)


@dataclass(frozen=True)
class Measured:
    """One size, from an empty cluster to all settled, and once more after a restart."""

    num_jobs: int
    num_adapters: int
    converged: bool
    converge_s: float
    reconciles: int
    reconciles_per_s: float
    operator_cpu_s: float
    api_server_cpu_s: float
    api_requests: int
    api_writes: int
    api_requests_per_object: float
    cpu_ms_per_object: float
    peak_memory_bytes: int
    restart_s: float
    restart_writes: int

    @property
    def num_objects(self) -> int:
        return self.num_jobs + self.num_adapters


def show(sizes: list[Measured], cost_ratio: float) -> None:
    table = Table(title="What objects cost the operator")
    for heading in ("objects", "settled", "s", "reconciles/s", "API requests/object",
                    "operator ms/object", "API server ms/object", "peak MiB", "restart s",
                    "writes after restart"):  # fmt: skip
        table.add_column(heading, justify="right")
    for m in sizes:
        table.add_row(
            f"{m.num_jobs} + {m.num_adapters}",
            "yes" if m.converged else "no",
            f"{m.converge_s:.0f}",
            f"{m.reconciles_per_s:.0f}",
            f"{m.api_requests_per_object:.1f}",
            f"{m.cpu_ms_per_object:.1f}",
            f"{1000 * m.api_server_cpu_s / m.num_objects:.1f}",
            f"{m.peak_memory_bytes / 2**20:.0f}",
            f"{m.restart_s:.1f}",
            str(m.restart_writes),
        )
    console.print(table)
    console.print(f"cost of an object, full size over a quarter: {cost_ratio:.2f} (limit 1.25)")
