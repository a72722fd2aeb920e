"""Logs have one format, and a wrong level is named."""

import json
import logging

import pytest
from loraland_core import logs
from loraland_core.errors import InvalidInput


def test_json_line_holds_message_and_extra_fields() -> None:
    """A collector finds fields, not text to take apart."""
    record = logging.LogRecord("part", logging.INFO, __file__, 1, "took %d s", (3,), None)
    record.adapter = "shop/desk"

    document = json.loads(logs.JsonFormatter().format(record))

    found = {key: document[key] for key in ("level", "logger", "message", "adapter")}
    assert found == {
        "level": "INFO", "logger": "part", "message": "took 3 s", "adapter": "shop/desk",
    }  # fmt: skip


def test_bound_fields_are_in_every_line_of_the_block() -> None:
    """Whoever is called need not know on whose behalf; afterwards nothing is left of it."""
    record = logging.LogRecord("part", logging.INFO, __file__, 1, "looked", (), None)
    with logs.bound(object={"name": "tickets"}), logs.bound(reconcile=7):
        within = json.loads(logs.JsonFormatter().format(record))
    after = json.loads(logs.JsonFormatter().format(record))

    assert (within["object"], within["reconcile"]) == ({"name": "tickets"}, 7)
    assert {"object", "reconcile"} & set(after) == set()


def test_unknown_level_is_named() -> None:
    """A wrong setting is a sentence with the variable in it, not a traceback."""
    with pytest.raises(InvalidInput, match="LORALAND_LOG_LEVEL: is 'loud'; expected one of DEBUG"):
        logs.configure(level="loud")
