"""The demo's story, station by station: stack, job, adapter, questions, and the end of it all."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loraland_client import Client
from loraland_client.failures import CallFailed
from loraland_core import names
from loraland_core.errors import LoraLandError
from loraland_local import bundle, installation, kubectl, layout, platform, stations
from loraland_local import stack as stacks
from loraland_local.apiclient.cluster import ApiError, Cluster
from loraland_local.layout import Layout
from loraland_local.options import StackOptions

from loraland_cli import access, stack
from loraland_cli.console import Failure, err, out
from loraland_cli.demo import asking, cluster, comparison, questions, report
from loraland_cli.demo.comparison import Score
from loraland_cli.demo.progress import JobProgress
from loraland_cli.demo.report import Outcome
from loraland_cli.signals import interruptible

_JOB_TIMEOUT_S = 1500.0
_ADAPTER_TIMEOUT_S = 180.0
_LOG_LINES = 25


class Clock:
    """Seconds by station; says which station failed."""

    def __init__(self) -> None:
        self.seconds_by_station: dict[str, float] = {}
        self._begun = time.monotonic()

    @contextlib.contextmanager
    def station(self, name: str, title: str) -> Iterator[None]:
        out.print(f"\n[bold]{title}[/bold]")
        started = time.monotonic()
        try:
            yield
        except ApiError as error:
            raise Failure(f"station {name} failed: {error}") from error
        except LoraLandError as error:
            log = error.log if isinstance(error, Failure) else ""
            raise Failure(f"station {name} failed: {error}", log=log) from error
        finally:
            self.seconds_by_station[name] = round(time.monotonic() - started, 2)

    def total_s(self) -> float:
        return round(time.monotonic() - self._begun, 2)


def run(state: Path, *, job: Path | None, json_file: Path | None, keep: bool) -> None:
    """Tell the whole story on a stack of its own; leaves no process behind."""
    place = layout.locate(state)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        # Said now and not after minutes of work.
        raise Failure(f"--json: there is no directory {json_file.absolute().parent}; make it first")
    if stacks.is_running(place):
        raise Failure(
            f"a demo runs in {place.state} already; stop it with `loraland down --state {state}`"
        )
    clock = Clock()
    with interruptible() as interrupts:
        is_kept = False
        try:
            outcome = _tell(place, job or bundle.path(bundle.QUICKSTART), clock, owned=not keep)
            is_kept = keep
        finally:
            interrupts.ignore()
            if not is_kept:
                _tear_down(place, clock)
    if json_file is not None:
        json_file.write_text(report.to_json(outcome))
        out.print(f"numbers written to {json_file}")
    _conclude(place, outcome, clock, is_kept=is_kept)


def compare(state: Path | None, job: str, *, adapter: str) -> None:
    """Ask on a running stack; ends with a failure where the adapter is no better."""
    place = layout.locate(state)
    stacks.running_record(place)
    with interruptible():
        namespace, name = access.qualified(job)
        outcome = asyncio.run(_ask(place, namespace, name, adapter, Clock()))
    _print_comparison(outcome)
    if not outcome.verdict.is_better:
        raise Failure(outcome.verdict.sentence)
    out.print(f"[green]✓[/green] {outcome.verdict.sentence}")


def _tell(place: Layout, source: Path, clock: Clock, *, owned: bool) -> Outcome:
    with clock.station("stack", "1  The stack: a small cluster, S3 and Redis on this machine"):
        stack.start(place, StackOptions(state=place.state, stop_with_stdin=owned), is_fresh=True)
    with clock.station("apply", f"2  kubectl apply -f {_short(source)}"):
        applied, job = cluster.apply(place.kubeconfig, source)
        out.print(f"  {applied}")
    namespace = platform.USER_NAMESPACE
    with clock.station("job", "3  The job: rows → training → scores → S3"):
        asyncio.run(_follow_job(place, namespace, job))
    outcome = asyncio.run(_ask(place, namespace, job, "", clock))
    _print_comparison(outcome)
    return outcome


def _tear_down(place: Layout, clock: Clock) -> None:
    out.print("\n[dim]stopping everything …[/dim]")
    started = time.monotonic()
    stacks.stop(place, is_own=True)
    clock.seconds_by_station["teardown"] = round(time.monotonic() - started, 2)


async def _follow_job(place: Layout, namespace: str, job: str) -> None:
    api = await Cluster.connect(place.kubeconfig)
    try:
        with JobProgress() as progress:
            finished = await cluster.follow_job(
                api, namespace, job, on_status=progress.show, timeout_s=_JOB_TIMEOUT_S
            )
    except Failure as failure:
        log = cluster.job_log(place.kubeconfig, namespace, job)
        raise Failure(str(failure), log=log or _operator_log(place)) from failure
    finally:
        await api.close()
    published = cluster.condition(finished, names.JobCondition.ADAPTER_PUBLISHED)
    if published.get("status") != "True":
        raise Failure(
            f"FineTuneJob {job} published no Adapter: {published.get('reason')}:"
            f" {published.get('message')}"
        )
    for score in read_scores(finished):
        out.print(f"  {score.metric}: {score.base:.3f} → {score.tuned:.3f}")


def _operator_log(place: Layout) -> str:
    return kubectl.pod_log(
        place.kubeconfig,
        platform.SYSTEM_NAMESPACE,
        installation.selector(stations.OPERATOR),
        num_lines=_LOG_LINES,
    )


async def _ask(place: Layout, namespace: str, job_name: str, adapter: str, clock: Clock) -> Outcome:
    api = await Cluster.connect(place.kubeconfig)
    try:
        job = await cluster.get(api, cluster.JOBS, namespace, job_name)
        own = ((job.get("status") or {}).get("adapterRef") or {}).get("name", job_name)
        namespace, name = access.qualified(adapter or own, namespace)
        with clock.station("adapter", "4  The adapter: Ready when a replica has verified it"):
            ready = await _ready_adapter(place, api, namespace, name)
            out.print(f"  {namespace}/{name} is Ready, digest {ready['status']['digest'][:12]}…")
    finally:
        await api.close()
    with clock.station("questions", "5  The same held-out questions to both, over gRPC"):
        return await _compare(place, job, ready, clock)


async def _ready_adapter(place: Layout, api: Cluster, namespace: str, name: str) -> dict[str, Any]:
    try:
        return await cluster.wait_adapter(api, namespace, name, timeout_s=_ADAPTER_TIMEOUT_S)
    except Failure as failure:
        raise Failure(str(failure), log=access.inference_log(place, _LOG_LINES)) from failure


async def _compare(
    place: Layout, job: dict[str, Any], adapter: dict[str, Any], clock: Clock
) -> Outcome:
    asked = questions.read(job)
    meta, status = adapter["metadata"], job.get("status") or {}
    adapter_id = f"{meta['namespace']}/{meta['name']}"
    evaluation = job["spec"].get("evaluation") or {}
    async with Client(access.grpc_address(place), token=access.token(place)) as client:
        try:
            answers = await asking.ask_all(
                client,
                asked,
                adapter=adapter_id,
                max_tokens=int(evaluation.get("maxNewTokens", 64)),
                on_answer=lambda: err.print(".", end=""),
            )
        except CallFailed as failure:
            raise Failure(str(failure), log=access.inference_log(place, _LOG_LINES)) from failure
    err.print()
    metric = (evaluation.get("metrics") or ["ExactMatch"])[0]
    pairs = [
        comparison.pair(metric, question, base, tuned)
        for question, (base, tuned) in zip(asked, answers, strict=True)
    ]
    scores = read_scores(job)
    uri = str(adapter["status"].get("uri") or (status.get("artifact") or {}).get("uri", ""))
    return Outcome(
        job=job["metadata"]["name"],
        adapter=adapter_id,
        base_model=job["spec"]["baseModel"],
        digest=adapter["status"]["digest"],
        uri=uri,
        files=str(place.objects / uri.removeprefix("s3://")),
        num_evaluated=int(status.get("numEvaluated") or 0),
        scores=scores,
        pairs=pairs,
        verdict=comparison.judge(pairs, scores),
        seconds_by_station=clock.seconds_by_station,
    )


def read_scores(job: dict[str, Any]) -> list[Score]:
    """Return the scores of a job's status; one without both numbers is left out."""
    return [
        Score(metric=score["name"], base=float(score["base"]), tuned=float(score["tuned"]))
        for score in (job.get("status") or {}).get("metrics") or []
        if score.get("base") is not None and score.get("tuned") is not None
    ]


def _print_comparison(outcome: Outcome) -> None:
    out.print()
    out.print(report.build_answers(outcome))
    out.print(report.build_scores(outcome))
    out.print(f"\nartifact  {outcome.uri}", soft_wrap=True)
    out.print(f"digest    {outcome.digest}", soft_wrap=True)
    out.print(f"files     {outcome.files}", soft_wrap=True)


def _conclude(place: Layout, outcome: Outcome, clock: Clock, *, is_kept: bool) -> None:
    seconds = ", ".join(f"{name} {s:.0f} s" for name, s in outcome.seconds_by_station.items())
    out.print(f"\nin all {clock.total_s():.0f} s: {seconds}")
    if not outcome.verdict.is_better:
        raise Failure(f"station questions failed: {outcome.verdict.sentence}")
    out.print(f"[green]✓[/green] {outcome.verdict.sentence}")
    option = f" --state {place.state}" if is_kept else ""
    begin = (
        "" if is_kept else "  loraland up                                  # a stack that stays\n"
    )
    out.print(
        f"\nTry next:\n{begin}"
        f"  loraland kubectl get finetunejobs,adapters -A\n"
        f'  loraland generate{option} -a support-desk --field message="My drill is broken, order 4711"\n'
        "  edit examples/quickstart/job.yaml: another rank, other rows; give it a new name, apply it\n",
        markup=False,
        soft_wrap=True,
    )


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
