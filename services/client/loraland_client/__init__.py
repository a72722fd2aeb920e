"""The Python client of LoRA Land's replicas."""

from loraland_client.client import Client, Completion
from loraland_client.failures import CallFailed

__all__ = ["CallFailed", "Client", "Completion"]
