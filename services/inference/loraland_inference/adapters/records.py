"""A record as it stands in Redis becomes what a replica may rely on. No I/O.

What cannot be read, such as the record of a newer release, is refused by name: it takes the place of
an earlier record, whose tenants and digest hold no more, and the heartbeat tells why.
"""

import json
import logging
from typing import Any

from loraland_core import keys
from loraland_core.errors import InvalidInput
from loraland_core.keys import AdapterRecord, Rejection
from loraland_core.names import Reason

log = logging.getLogger("loraland.registry")

# The digest of a record that tells none.
UNKNOWN_DIGEST = "unknown"
# Nobody's name: namespaces are lower-case labels.
NOBODY = "-"

Entry = tuple[AdapterRecord, Rejection | None]


def parse(adapter_id: str, data: bytes) -> Entry:
    """Return the record; one that cannot be read as far as it goes, and why it is refused."""
    try:
        return keys.parse_adapter_record(data), None
    except InvalidInput as error:
        log.warning("the record of %s cannot be read: %s", adapter_id, error)
        record = _salvage(data)
        rejection = Rejection(
            digest=record.digest, reason=Reason.RECORD_UNREADABLE.value, message=str(error)
        )
        return record, rejection


def _salvage(data: bytes) -> AdapterRecord:
    """Return what says whose adapter it is, as long as the fields are still what they were."""
    try:
        found: Any = json.loads(data)
    except ValueError:
        found = {}
    if not isinstance(found, dict):
        found = {}
    digest, tenants, revision = (found.get(name) for name in ("digest", "tenants", "revision"))
    are_names = isinstance(tenants, list) and all(isinstance(name, str) for name in tenants)
    return AdapterRecord.model_construct(
        base_model="",
        digest=digest if isinstance(digest, str) and digest else UNKNOWN_DIGEST,
        uri="",
        size_bytes=0,
        rank=0,
        # An empty list would be as good as everybody for some reader.
        tenants=tenants if are_names and tenants else [NOBODY],
        revision=revision if isinstance(revision, int) else 0,
    )
