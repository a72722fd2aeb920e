"""What all pods of the node share."""

import dataclasses
import datetime as dt
import pathlib

from loraland_local.apiclient.cluster import Cluster
from loraland_local.apiclient.objects import Event, Object
from loraland_local.apiclient.recorder import Recorder
from loraland_local.kubelet import images
from loraland_local.kubelet.addresses import AddressPool
from loraland_local.kubelet.config import Config
from loraland_local.kubelet.logs import LogStore


@dataclasses.dataclass(frozen=True)
class Context:
    cluster: Cluster
    recorder: Recorder
    config: Config
    logs: LogStore
    addresses: AddressPool
    node_allocatable: dict[str, str]

    @property
    def claims(self) -> pathlib.Path:
        return self.config.state / "volumes"

    def load_images(self) -> images.ImageMap:
        # Read each time: the map may gain an image while the kubelet runs.
        return images.load(self.config.images)

    def tell(
        self, pod: Object, kind: str, reason: str, message: str, *, field_path: str = ""
    ) -> None:
        event = Event(kind, reason, message, field_path)
        self.recorder.submit(pod, api_version="v1", kind="Pod", event=event)


def now_utc() -> dt.datetime:
    return dt.datetime.now(tz=dt.UTC)
