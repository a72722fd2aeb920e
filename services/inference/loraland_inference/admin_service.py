"""The Admin service: pins, prefetch, eviction and drain of this replica. Wants the role ``admin``."""

from collections.abc import Callable
from typing import Any

from loraland_core.errors import InvalidInput
from loraland_core.rpc import admin_pb2, admin_pb2_grpc

from loraland_inference import requests, statuses
from loraland_inference.adapters.coordinator import Coordinator
from loraland_inference.server_state import ServerState


class AdminService(admin_pb2_grpc.AdminServicer):
    """Acts on this replica alone; what every replica shall do is the Adapter's spec."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        state: ServerState,
        on_drain: Callable[[], None],
    ) -> None:
        self._coordinator = coordinator
        self._state = state
        self._on_drain = on_drain

    async def PinAdapter(  # noqa: N802 (gRPC's name)
        self, request: admin_pb2.PinAdapterRequest, context: Any
    ) -> admin_pb2.PinAdapterResponse:
        async with statuses.Answering(context):
            await self._coordinator.pin(_adapter_id(request.adapter))
            return admin_pb2.PinAdapterResponse()

    async def UnpinAdapter(  # noqa: N802 (gRPC's name)
        self, request: admin_pb2.UnpinAdapterRequest, context: Any
    ) -> admin_pb2.UnpinAdapterResponse:
        async with statuses.Answering(context):
            self._coordinator.unpin(_adapter_id(request.adapter))
            return admin_pb2.UnpinAdapterResponse()

    async def PrefetchAdapter(  # noqa: N802 (gRPC's name)
        self, request: admin_pb2.PrefetchAdapterRequest, context: Any
    ) -> admin_pb2.PrefetchAdapterResponse:
        async with statuses.Answering(context):
            digest = await self._coordinator.prefetch(_adapter_id(request.adapter))
            return admin_pb2.PrefetchAdapterResponse(digest=digest)

    async def EvictAdapter(  # noqa: N802 (gRPC's name)
        self, request: admin_pb2.EvictAdapterRequest, context: Any
    ) -> admin_pb2.EvictAdapterResponse:
        async with statuses.Answering(context):
            self._coordinator.evict(_adapter_id(request.adapter))
            return admin_pb2.EvictAdapterResponse()

    async def Drain(  # noqa: N802 (gRPC's name)
        self, _: admin_pb2.DrainRequest, context: Any
    ) -> admin_pb2.DrainResponse:
        async with statuses.Answering(context):
            self._on_drain()
            return admin_pb2.DrainResponse(num_running=self._state.num_requests)


def _adapter_id(adapter: str) -> str:
    if not adapter:
        raise InvalidInput("is empty; expected namespace/name", field="adapter")
    return requests.check_adapter_id(adapter)
