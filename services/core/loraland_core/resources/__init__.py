"""Models of the custom resources: the source of the CRDs. Pure data, no I/O."""

from loraland_core.resources.adapter import Adapter, AdapterSpec, AdapterStatus
from loraland_core.resources.common import Condition, Metadata, SecretRef
from loraland_core.resources.finetunejob import FineTuneJob, FineTuneJobSpec, FineTuneJobStatus

__all__ = [
    "Adapter",
    "AdapterSpec",
    "AdapterStatus",
    "Condition",
    "FineTuneJob",
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "Metadata",
    "SecretRef",
]
