"""The committed gRPC stubs equal what `make gen` makes of the contract."""

from loraland_core.rpc import generate


def test_committed_stubs_equal_their_source() -> None:
    """A change of a .proto file comes with its stubs."""
    generated = generate.generate(generate.PROTOS)

    committed = {name: (generate.HERE / name).read_text() for name in generated}
    assert committed == generated
