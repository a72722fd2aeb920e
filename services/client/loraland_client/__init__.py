"""The Python client of LoRA Land's replicas."""

from loraland_client.channels import Tls
from loraland_client.client import Client
from loraland_client.failures import CallFailed
from loraland_client.wire import Completion, Score, TokenLogprob

__all__ = ["CallFailed", "Client", "Completion", "Score", "Tls", "TokenLogprob"]
