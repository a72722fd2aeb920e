"""Writes random adapters for a base model into a bucket, and the Adapters that import them.

``scripts/accept-gpu.sh`` pipes what this prints into kubectl. The bucket is one that the tenant's
Secret opens; the base model's shape comes from its configuration, its weights are not read.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import boto3

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))


def write(repo: str, revision: str, folder: Path, count: int, ranks: list[int]) -> list[Path]:
    # Here, so that --help needs neither.
    import random_adapters  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(repo, revision=revision)
        )
    linears = random_adapters.find_linears(model)
    return random_adapters.ensure_adapters(folder, linears, count=count, ranks=ranks, base=repo)


def build(name: str, namespace: str, base_model: str, uri: str, secret: str) -> dict[str, object]:
    reference = {"name": secret}
    return {
        "apiVersion": "loraland.dev/v1alpha1",
        "kind": "Adapter",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"loraland.dev/acceptance": "true"},
        },
        "spec": {
            "baseModel": base_model,
            "source": {"s3": {"uri": uri, "credentialsSecretRef": reference}},
            "importer": {"credentialsSecretRef": reference},
            "deletionPolicy": "Delete",
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", required=True, help="the base model on the Hub, for its shape")
    parser.add_argument("--revision", default="main")
    parser.add_argument("--base-model", required=True, help="its name in the catalogue")
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--prefix", default="acceptance")
    parser.add_argument("--endpoint-url", default=None)
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--secret", default="loraland-store")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32, 64])
    options = parser.parse_args()
    client = boto3.client("s3", endpoint_url=options.endpoint_url)
    items = []
    with tempfile.TemporaryDirectory() as folder:
        adapters = write(options.repo, options.revision, Path(folder), options.count, options.ranks)
        for index, adapter in enumerate(adapters):
            name = f"accept-{index:02d}"
            for file in sorted(adapter.iterdir()):
                client.upload_file(
                    str(file), options.bucket, f"{options.prefix}/{name}/{file.name}"
                )
            uri = f"s3://{options.bucket}/{options.prefix}/{name}"
            items.append(build(name, options.namespace, options.base_model, uri, options.secret))
    sys.stdout.write(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}) + "\n")


if __name__ == "__main__":
    main()
