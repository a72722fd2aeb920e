"""Decisions: ``(resource, observed, now) → Plan``. Pure; nothing here reads or writes anything."""
