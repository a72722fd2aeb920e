"""How a completion's end in the engine becomes its caller's error."""

import pytest
from loraland_core.errors import InvalidInput, LoraLandError
from loraland_inference import grpc_service
from loraland_inference.engine_client import Ticket
from loraland_inference.failures import DeadlinePassed, InternalFault
from loraland_inference.messages import Output


@pytest.mark.parametrize(
    ("output", "expected", "message"),
    [
        ({"finish": "failed", "error": ""}, InternalFault, "with request id r"),
        ({"finish": "refused", "error": "no room"}, InvalidInput, "sampling.constraint: no room"),
        ({"finish": "deadline"}, DeadlinePassed, "the deadline passed"),
    ],
    ids=["failed", "refused", "deadline"],
)
async def test_end_without_an_answer_is_raised(
    output: Output, expected: type[LoraLandError], message: str
) -> None:
    """The table of errors then says which status it is."""
    ticket = Ticket("r")
    ticket.outputs.put_nowait(output)

    with pytest.raises(expected, match=message):
        await grpc_service._next(ticket)
