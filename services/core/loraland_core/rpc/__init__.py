"""Generated gRPC stubs of ``protos/loraland/inference/v1``; see ``generate``."""
