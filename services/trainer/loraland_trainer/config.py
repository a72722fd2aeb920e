"""What the pod's environment says. Read once, in ``main``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loraland_core import imports, jobspec, paths
from loraland_core.errors import InvalidInput


@dataclass(frozen=True)
class Config:
    """Settings of one training pod; credentials are kept out of its printed form."""

    job_file: Path
    import_file: Path
    dataset_mount: Path
    source_mount: Path
    cache_dir: Path
    termination_log: Path
    host: str
    port: int
    log_level: str
    log_as_json: bool
    dataset_credentials: dict[str, str] = field(repr=False)
    source_credentials: dict[str, str] = field(repr=False)
    hub_token: str | None = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Config":
        return cls(
            job_file=paths.mounted(jobspec.JOB_FILE),
            import_file=paths.mounted(imports.IMPORT_FILE),
            dataset_mount=paths.mounted(jobspec.DATASET_MOUNT),
            source_mount=paths.mounted(imports.SOURCE_MOUNT),
            cache_dir=paths.cache_dir(),
            termination_log=paths.termination_log(),
            host=environment.get("POD_IP") or "0.0.0.0",  # noqa: S104 -- a pod's own network
            port=_port(environment, "LORALAND_PROGRESS_PORT", jobspec.PROGRESS_PORT),
            log_level=environment.get("LORALAND_LOG_LEVEL", "INFO"),
            log_as_json=environment.get("LORALAND_LOG_FORMAT") == "json",
            dataset_credentials=_credentials(environment, jobspec.DATASET_ENV_PREFIX),
            source_credentials=_credentials(environment, imports.SOURCE_ENV_PREFIX),
            hub_token=environment.get("HF_TOKEN") or None,
        )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) > 65535:
        raise InvalidInput(f"is {text!r}; expected a port", field=name, reason="InvalidJob")
    return int(text)


def _credentials(environment: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Return boto3's arguments for an account of its own, if there is one."""
    names = {
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "aws_session_token": "AWS_SESSION_TOKEN",
    }
    prefixed = {arg: prefix + name for arg, name in names.items()}
    return {arg: environment[name] for arg, name in prefixed.items() if environment.get(name)}
