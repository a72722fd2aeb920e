"""Progress is served as it is, to the operator and to Prometheus."""

import json
import socket
import urllib.error
import urllib.request

import pytest
from loraland_core import jobspec
from loraland_trainer import lengths, progress
from loraland_trainer.lengths import DataReport


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
        body: bytes = reply.read()
    return body.decode()


def test_progress_is_the_contracts_document() -> None:
    """What the operator parses is what the board holds."""
    board = progress.Board()
    board.update(step=3, total_steps=60, loss=0.5, tokens_per_second=200.0, eta_seconds=9.0)
    board.enter("training")

    with progress.served(board, host="127.0.0.1", port=0) as port:
        assert port is not None
        reply = get(port, "/progress")

    assert board.progress == jobspec.parse_progress(reply)
    assert json.loads(reply)["totalSteps"] == 60


def test_metrics_are_prometheus_text() -> None:
    """Gauges carry the same numbers."""
    board = progress.Board()
    board.update(step=3, loss=0.5)
    learned = lengths.measure([3, 9, 12], max_tokens=8, policy="Drop", num_dropped=2)
    held_out = lengths.measure([3], max_tokens=8, policy="Cut")
    board.count_rows(DataReport("rows.jsonl", 4, learned, held_out))

    with progress.served(board, host="127.0.0.1", port=0) as port:
        assert port is not None
        reply = get(port, "/metrics")

    assert "loraland_trainer_step 3.0" in reply
    assert "loraland_trainer_loss 0.5" in reply
    assert "loraland_trainer_rows_learned 1.0" in reply
    assert "loraland_trainer_rows_dropped 2.0" in reply
    assert "loraland_trainer_rows_left_out 4.0" in reply


def test_other_paths_are_not_found() -> None:
    """Nothing else is served."""
    with progress.served(progress.Board(), host="127.0.0.1", port=0) as port:
        assert port is not None
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(port, "/")

    assert caught.value.code == 404
    caught.value.close()


def test_a_taken_port_costs_the_progress_only(caplog: pytest.LogCaptureFixture) -> None:
    """Training goes on, and the log says why nobody sees it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with progress.served(progress.Board(), host="127.0.0.1", port=port) as served:
            found = served

    assert found is None
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in caplog.text
