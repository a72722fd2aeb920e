"""A FineTuneJob from a YAML file, held to the rules that an API server would hold it to."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from loraland_core import crds, names
from loraland_core.errors import InvalidInput
from loraland_core.resources import FineTuneJob
from loraland_local.api import rules, schemas

MAX_FAULTS_SHOWN = 5


def read(path: Path) -> FineTuneJob:
    """Return the one FineTuneJob of the file; raise ``InvalidInput`` for what is wrong with it."""
    documents = _documents(path)
    jobs = [d for d in documents if isinstance(d, dict) and d.get("kind") == names.FINE_TUNE_JOB]
    if len(jobs) != 1:
        raise InvalidInput(
            f"holds {len(jobs)} FineTuneJobs; expected one", field=str(path), reason="InvalidJob"
        )
    checked = _check(jobs[0], path)
    return FineTuneJob.model_validate(checked)


def job_uid(job: FineTuneJob) -> str:
    """Return what names this very job: the same file goes on where it stopped, another starts."""
    document = job.spec.model_dump(by_alias=True, exclude_none=True)
    text = json.dumps([job.metadata.namespace, job.metadata.name, document], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _documents(path: Path) -> list[Any]:
    try:
        return list(yaml.safe_load_all(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"is not YAML: {error}", field=str(path), reason="InvalidJob") from error
    except OSError as error:
        raise InvalidInput(
            f"cannot be read: {error.strerror}", field=str(path), reason="InvalidJob"
        ) from error


def _check(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """Fill in defaults and apply the CRD's schema and rules."""
    if document.get("apiVersion") != names.API_VERSION:
        raise InvalidInput(
            f"apiVersion is {document.get('apiVersion')!r}; expected {names.API_VERSION}",
            field=str(path),
            reason="InvalidJob",
        )
    schema = _schema()
    unknown: list[str] = []
    spec = schemas.prune(document.get("spec") or {}, schema, "spec", unknown)
    spec = schemas.default(spec, schema)
    faults = [f"{field}: unknown field" for field in unknown]
    causes = schemas.validate(spec, schema, "spec")
    if not schemas.blocks_rules(causes):
        causes += rules.check(spec, None, schema, "spec")
    faults += [str(cause) for cause in causes]
    if faults:
        more = len(faults) - MAX_FAULTS_SHOWN
        text = "; ".join(faults[:MAX_FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise InvalidInput(text, field=str(path), reason="InvalidJob")
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise InvalidInput("metadata.name is missing", field=str(path), reason="InvalidJob")
    return {
        **document,
        "metadata": {"name": metadata["name"], "namespace": metadata.get("namespace") or "default"},
        "spec": spec,
        "status": {},
    }


def _schema() -> dict[str, Any]:
    kinds = {crd["spec"]["names"]["kind"]: crd for crd in crds.build_crds()}
    version = kinds[names.FINE_TUNE_JOB]["spec"]["versions"][0]
    schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema
