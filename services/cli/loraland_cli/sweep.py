"""``loraland sweep``: what the stack's artifact store holds and nobody needs any more."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from loraland_core.errors import Unavailable
from loraland_core.store import Store, StoreConfig
from loraland_local import credentials, layout, platform
from loraland_local import stack as stacks
from loraland_local.layout import Layout
from loraland_operator import cluster, housekeeping
from loraland_operator.housekeeping import Housekeeping, Report

from loraland_cli.console import out


def run(state: Path | None, *, remove: bool) -> None:
    """Print what would go; with ``remove`` it goes."""
    place = layout.locate(state)
    report = asyncio.run(_sweep(place, is_dry=not remove))
    out.print(housekeeping.describe(report), markup=False, highlight=False, soft_wrap=True)
    if report.removals or report.uploads:
        removed = f"{report.num_removed} folders and {len(report.uploads)} uploads removed."
        out.print(removed if remove else "--remove removes them.")


async def _sweep(place: Layout, *, is_dry: bool) -> Report:
    store = _open_store(place)
    api = await cluster.connect(str(place.kubeconfig))
    try:
        keeping = Housekeeping(
            cluster=api, store=store, namespaces=(), clock=lambda: datetime.now(UTC)
        )
        return await keeping.sweep(is_dry=is_dry)
    finally:
        await api.close()
        store.close()


def _open_store(place: Layout) -> Store:
    record = stacks.running_record(place)
    if not record.store_url:
        raise Unavailable("the stack's artifact store is not up yet; wait a little")
    known = credentials.ensure(place)
    return Store(
        StoreConfig(bucket=platform.BUCKET, endpoint_url=record.store_url),
        credentials={
            "aws_access_key_id": known.store_access_key,
            "aws_secret_access_key": known.store_secret_key,
        },
    )
