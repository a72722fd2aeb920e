"""The controllers of the laptop's control plane; ordinary clients of the API."""
