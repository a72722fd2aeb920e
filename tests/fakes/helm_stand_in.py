"""``helm`` for the documentation's blocks: the commands that they use, by Helm's own library.

Understands what docs/install.md says and refuses the rest; it is no command-line of Helm.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import helm_python as helm


def merge(into: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(into.get(key), dict)
        into[key] = merge(into[key], value) if both else value
    return into


def values(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in options.values:
        merge(found, helm.values_from_yaml(Path(file).read_text()))
    for text in options.set:
        merge(found, helm.parse_set_string(text))
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="helm")
    parser.add_argument(
        "command", choices=["lint", "template", "install", "upgrade", "rollback", "history"]
    )
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--values", action="append", default=[])
    parser.add_argument("--set", action="append", default=[])
    return parser.parse_args()


def run(options: argparse.Namespace) -> int:
    first, last = options.arguments[0], options.arguments[-1]
    match options.command:
        case "lint":
            report = helm.lint(first, values(options), strict=True)
            faults = [m["error"] for m in report["messages"] if m["severity"] > 1]
            sys.stdout.write("\n".join([*faults, f"{len(faults)} chart(s) failed"]) + "\n")
            return 1 if faults else 0
        case "template":
            with helm.Chart.load(last) as chart:
                files = chart.render(values(options), name=first, namespace=options.namespace)
            shown = [text for path, text in sorted(files.items()) if path.endswith(".yaml")]
            sys.stdout.write("\n---\n".join(text for text in shown if text.strip()) + "\n")
            return 0
    with helm.Config(
        kubeconfig_path=os.environ["KUBECONFIG"], namespace=options.namespace
    ) as config:
        match options.command:
            case "install":
                config.install(last, first, values(options), timeout=60)
            case "upgrade":
                config.upgrade(last, first, values(options), timeout=60)
            case "rollback":
                config.rollback(first, version=int(last), timeout=60)
        for entry in config.history(first):
            sys.stdout.write(f"{entry['revision']} {entry['status']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(parse()))
