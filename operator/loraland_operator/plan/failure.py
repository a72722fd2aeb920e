"""Why a training run failed, in a reason and a sentence for the person who started it. Pure."""

import re
from collections.abc import Sequence

from loraland_core import jobspec
from loraland_core.jobspec import ExitCode
from loraland_core.names import Reason
from loraland_core.resources.finetunejob import Failure

from loraland_operator.plan import pods
from loraland_operator.plan.pods import Object, Termination

MAX_MESSAGE_LENGTH = 4096
_REASON = re.compile(r"^[A-Z][A-Za-z0-9]{0,63}$")
_BY_EXIT_CODE = {
    ExitCode.INVALID_JOB: Reason.INVALID_JOB,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.STORE_UNREACHABLE: Reason.ARTIFACT_STORE_UNREACHABLE,
}


def diagnose(job: Object, job_pods: Sequence[Object], log_tail: str) -> Failure:
    """Explain a failed Job from its condition, its last pod's end and that pod's log."""
    job_reason, job_message = pods.job_failure(job)
    last = pods.find_last_termination(job_pods)
    if job_reason == "DeadlineExceeded":
        return Failure(reason=Reason.DEADLINE_EXCEEDED, message=job_message)
    if last is None:
        message = log_tail or job_message or "the pods are gone and left no message"
        return Failure(reason=Reason.BACKOFF_LIMIT_EXCEEDED, message=_cut(message))
    reason, message = _explain(last, log_tail)
    return Failure(reason=reason, message=message, exit_code=last.exit_code)


def describe_attempt(termination: Termination | None, log_tail: str = "") -> str:
    """Return one sentence about an attempt that is tried again."""
    if termination is None:
        return "its pod disappeared"
    _, message = _explain(termination, log_tail)
    return f"exit code {termination.exit_code}: {message}"


def _explain(last: Termination, log_tail: str) -> tuple[str, str]:
    said = jobspec.parse_termination_message(last.message)
    message = said.message if said else last.message or log_tail
    if last.reason == "OOMKilled":
        return Reason.OUT_OF_MEMORY, _cut(
            message or "the container was killed for exceeding its memory limit"
        )
    reason = _BY_EXIT_CODE.get(ExitCode(last.exit_code)) if _is_reserved(last.exit_code) else None
    if last.exit_code == ExitCode.INVALID_JOB and said and _REASON.match(said.reason):
        return said.reason, _cut(message)
    if not message:
        message = f"pod {last.pod} ended with exit code {last.exit_code} and said nothing"
    return reason or Reason.BACKOFF_LIMIT_EXCEEDED, _cut(message)


def _is_reserved(exit_code: int) -> bool:
    return exit_code in ExitCode.__members__.values()


def _cut(message: str) -> str:
    """Keep the end: of a log, that is where the error is."""
    message = message.strip()
    if len(message) <= MAX_MESSAGE_LENGTH:
        return message
    return "…" + message[-(MAX_MESSAGE_LENGTH - 1) :]
