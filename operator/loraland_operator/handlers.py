"""kopf's side: watch streams in, keys to reconcile out. Nothing is decided here.

Bare events suffice: a plan depends on what is there, not on what happened. So kopf keeps no state of
its own on our objects: no annotation with a copy of the spec, no finalizer.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import kopf
from loraland_core import names

from loraland_operator.mirror import Key, Mirror, key_of
from loraland_operator.resync import WATCHED, concerns
from loraland_operator.workqueue import Workqueue

log = logging.getLogger(__name__)


def register(registry: kopf.OperatorRegistry, *, mirror: Mirror, queue: Workqueue[Key]) -> None:
    """Subscribe to FineTuneJobs, Adapters and the children of jobs."""

    async def observe(event: Mapping[str, Any], **_: Any) -> None:
        obj = event["object"]
        log.debug("%s %s", event["type"], key_of(obj))
        if event["type"] == "DELETED":
            mirror.remove(obj)
        elif not mirror.put(obj):
            return
        queue.add(concerns(obj))

    for resource, selector in WATCHED:
        group, _, version = resource.api_version.rpartition("/")
        labels = {selector: kopf.PRESENT} if selector else None
        kopf.on.event(
            group, version, resource.plural, labels=labels, registry=registry, id=resource.plural
        )(observe)


def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Find the API server as ``cluster.connect`` does: KUBECONFIG first, then the pod's account."""
    return kopf.login_with_kubeconfig(**arguments) or kopf.login_with_service_account(**arguments)


def build_settings(*, namespaces: Sequence[str]) -> kopf.OperatorSettings:
    """Return kopf's settings for an operator that runs unattended."""
    settings = kopf.OperatorSettings()
    # Who is confined to namespaces may not look at what is cluster-wide: CRDs and namespaces.
    settings.scanning.disabled = bool(namespaces)
    settings.peering.standalone = True
    # Not used, because there are only bare events; set so that a default can never show up.
    settings.persistence.finalizer = f"{names.GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(
        prefix=f"kopf.{names.GROUP}"
    )
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(
        prefix=f"kopf.{names.GROUP}"
    )
    settings.posting.enabled = False
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 10
    # Our handlers only note what they see, so a stop need not wait for them.
    settings.queueing.idle_timeout = 1.0
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = 20
    for resource, selector in WATCHED:
        if selector:
            # Kept apart by the API server, so that the pods of others never reach us.
            group, _, version = resource.api_version.rpartition("/")
            settings.watching.label_selectors[(group, version, resource.plural)] = selector
    return settings
