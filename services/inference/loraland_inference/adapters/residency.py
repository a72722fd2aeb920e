"""What a replica says of the adapters that it holds or fails to bring. Pure."""

from collections.abc import Callable, Mapping

from loraland_core import keys
from loraland_core.keys import AdapterRecord, ResidentAdapter


def build(
    records: Mapping[str, AdapterRecord],
    *,
    tier_of: Callable[[str], str],
    failures: Mapping[str, str],
) -> dict[str, ResidentAdapter]:
    """Return what is nearer than S3, and at most ``MAX_FAILING`` that the last attempt failed on."""
    found = {}
    num_failing = 0
    for adapter_id, record in sorted(records.items()):
        tier, error = tier_of(record.digest), failures.get(record.digest)
        if error is not None:
            num_failing += 1
            if num_failing > keys.MAX_FAILING:
                continue
            error = error[: keys.MAX_ERROR_LENGTH]
        if error is not None or tier != "absent":
            found[adapter_id] = ResidentAdapter(digest=record.digest, tier=tier, error=error)
    return found
