"""A pod's volumes and each container's view of them, on this machine's disk.

A process here has no mount namespace. Each container gets a directory of its own in which its
volumes lie at their mount paths, and finds it through ``LORALAND_ROOT``.
"""

import contextlib
import dataclasses
import datetime as dt
import os
import pathlib
import shutil
from collections.abc import Mapping

from loraland_local.apiclient import objects
from loraland_local.apiclient.objects import Object
from loraland_local.kubelet import environment
from loraland_local.kubelet.projections import Files

_DATA_LINK = "..data"


@dataclasses.dataclass(frozen=True)
class PodDirectory:
    """The directories of one pod; they go with the pod."""

    path: pathlib.Path
    temporary_root: pathlib.Path

    def volume(self, name: str) -> pathlib.Path:
        return self.path / "volumes" / name

    def root(self, container: str) -> pathlib.Path:
        return self.path / "rootfs" / container

    def temporary(self, container: str) -> pathlib.Path:
        return self.temporary_root / container

    @property
    def kubeconfig(self) -> pathlib.Path:
        return self.path / "kubeconfig"

    def remove(self) -> None:
        for path in (self.path, self.temporary_root):
            shutil.rmtree(path, ignore_errors=True)


def ensure_plain(volume: Object, directory: PodDirectory) -> pathlib.Path:
    """Make an emptyDir or hostPath directory; return where it is."""
    if "hostPath" in volume:
        path = pathlib.Path(volume["hostPath"]["path"])
        kind = volume["hostPath"].get("type") or ""
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        elif kind == "FileOrCreate":
            path.touch()
        elif kind == "Directory" and not path.is_dir():
            raise ValueError(f"hostPath type check failed: {path} is not a directory")
        elif kind == "File" and not path.is_file():
            raise ValueError(f"hostPath type check failed: {path} is not a file")
        return path
    if "emptyDir" not in volume:
        kind = next((key for key in volume if key != "name"), "none")
        raise ValueError(
            f"volume {volume['name']!r}: kind {kind} is not available here; use configMap, secret, "
            "projected, downwardAPI, emptyDir, hostPath or persistentVolumeClaim"
        )
    path = directory.volume(volume["name"])
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_files(target: pathlib.Path, files: Files) -> None:
    """Show exactly these files in the directory, all of them changing in one moment.

    As the real kubelet does it: files lie in a dated directory, ``..data`` points to it, and the
    visible names point through ``..data``; replacing that one link is atomic.
    """
    target.mkdir(parents=True, exist_ok=True)
    stamp = dt.datetime.now(tz=dt.UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    dated = target / stamp
    for relative, file in files.items():
        path = dated / _checked(relative)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    dated.mkdir(exist_ok=True)
    link = target / _DATA_LINK
    before = link.readlink() if link.is_symlink() else None
    _replace_link(link, pathlib.Path(stamp))
    visible = {pathlib.PurePosixPath(relative).parts[0] for relative in files}
    for name in visible:
        _replace_link(target / name, pathlib.Path(_DATA_LINK) / name)
    for path in target.iterdir():
        if path.is_symlink() and path.name != _DATA_LINK and path.name not in visible:
            path.unlink()
    if before is not None:
        shutil.rmtree(target / before, ignore_errors=True)


def _checked(relative: str) -> str:
    path = pathlib.PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"volume path {relative!r} must be relative and stay inside the volume")
    return relative


def _replace_link(link: pathlib.Path, target: pathlib.Path) -> None:
    fresh = link.with_name(f"{link.name}.fresh")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(target)
    fresh.replace(link)


def lay_out(
    container: Object,
    root: pathlib.Path,
    volumes: Mapping[str, pathlib.Path],
    variables: Mapping[str, str],
) -> None:
    """Link a container's volumes into its root at their mount paths, outer ones first."""
    root.mkdir(parents=True, exist_ok=True)
    mounts = sorted(container.get("volumeMounts") or [], key=lambda m: len(str(m["mountPath"])))
    for mount in mounts:
        source = volumes[mount["name"]]
        inside = mount.get("subPath") or environment.expand(
            str(mount.get("subPathExpr") or ""), variables
        )
        if inside:
            source /= _checked(inside)
            if not source.exists():
                source.mkdir(parents=True)
        target = under(root, str(mount["mountPath"]))
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or not target.exists():
            _replace_link(target, source)


def under(root: pathlib.Path, path: str) -> pathlib.Path:
    """Return where a container's path lies, below its root."""
    return root / os.path.normpath("/" + path).lstrip("/")


def pod_directory(state: pathlib.Path, pod: Object) -> PodDirectory:
    uid = objects.uid(pod)
    # Short, because the path of a Unix socket in it must not have more than 107 letters.
    return PodDirectory(state / "pods" / uid, state / "t" / uid[:8])
