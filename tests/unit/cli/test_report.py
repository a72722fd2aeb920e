"""The demo's report."""

import json

from loraland_cli.demo import report
from loraland_cli.demo.comparison import Answer, Pair, Score, Verdict
from loraland_cli.demo.questions import Question
from rich.console import Console

PAIR = Pair(
    question=Question({"m": "[bold]hi"}, "[bold]hi\n", '{"a":1,"b":"x"}'),
    base=Answer("no idea", 0.1, 1.0),
    tuned=Answer('{"a":1,"b":"y"}', 0.2, 0.8, "d" * 64),
    base_score=0.0,
    tuned_score=0.5,
)
OUTCOME = report.Outcome(
    job="j",
    adapter="default/a",
    base_model="tiny",
    digest="d" * 64,
    uri="s3://b/k/",
    files="/state/s3/b/k/",
    num_evaluated=64,
    scores=[Score("JsonFieldMatch", 0.1, 0.8), Score("ExactMatch", 0.0, 0.2)],
    pairs=[PAIR],
    verdict=Verdict(True, "better"),
    seconds_by_station={"stack": 7.0, "job": 200.0},
)


def printed(renderable: object) -> str:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_json_holds_scores_seconds_and_digest() -> None:
    """A program finds what a person was shown."""
    document = json.loads(report.to_json(OUTCOME))

    assert (document["scores"], document["seconds_by_station"], document["digest"]) == (
        {"metric": "JsonFieldMatch", "base": 0.1, "tuned": 0.8},
        {"stack": 7.0, "job": 200.0},
        "d" * 64,
    )


def test_answers_show_text_as_it_is() -> None:
    """Brackets in a question are no markup, and JSON gets spaces to break at."""
    text = printed(report.build_answers(OUTCOME))

    assert ("[bold]hi" in text, '"a": 1, "b": "y"' in text, "50%" in text) == (True, True, True)


def test_scores_show_every_metric_and_the_latency() -> None:
    """One line for each metric of the job, then the medians."""
    text = printed(report.build_scores(OUTCOME))

    assert [word in text for word in ("0.800", "ExactMatch", "0.20 s")] == [True, True, True]
