"""Entry of ``python -m loraland_models.prefetch NAME``: brings a base model to this disk, and ends.

What the chart runs in a volume, or on a node, before replicas and jobs need the weights there.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from loraland_core import catalogue, logs, paths
from loraland_core.errors import InvalidInput, LoraLandError
from loraland_core.store import StoreConfig

from loraland_models import sources

CATALOGUE_FILE = "/etc/loraland/catalogue/catalogue.yaml"
log = logging.getLogger("loraland.prefetch")
_COMMIT = re.compile("[0-9a-f]{40}")


def main() -> None:
    try:
        logs.configure(
            level=os.environ.get("LORALAND_LOG_LEVEL") or "INFO",
            as_json=os.environ.get("LORALAND_LOG_FORMAT") == "json",
        )
        if len(sys.argv) != 2:
            raise InvalidInput("expected the name of one base model", field="arguments")
        fetch(sys.argv[1], os.environ)
    except LoraLandError as error:
        # A sentence for whoever set it up, not a traceback.
        sys.exit(f"loraland-prefetch: {error}")


def fetch(name: str, environ: Mapping[str, str]) -> sources.ResolvedModel:
    """Bring the weights here; raise ``InvalidInput`` where they are of another revision."""
    file = Path(environ.get("LORALAND_CATALOGUE") or paths.mounted(CATALOGUE_FILE))
    entry = catalogue.load(file).find(name)
    bucket = environ.get("LORALAND_STORE_BUCKET", "")
    store = StoreConfig(
        bucket=bucket,
        endpoint_url=environ.get("LORALAND_STORE_ENDPOINT_URL") or None,
        region=environ.get("LORALAND_STORE_REGION") or "us-east-1",
    )
    found = sources.resolve(
        name, entry, cache_dir=paths.cache_dir(), store=store if bucket else None, report=log.info
    )
    hub = entry.source.hub
    if hub is not None and _COMMIT.fullmatch(hub.revision) and found.revision != hub.revision:
        raise InvalidInput(
            f"the Hub has {found.revision} where the catalogue names {hub.revision}",
            field="source.hub.revision",
            reason="BaseModelUnavailable",
        )
    log.info("%s is here at revision %s", name, found.revision)
    return found


if __name__ == "__main__":
    main()
