"""The npm package as its users get it: packed, and unpacked below a folder's node_modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import ROOT

SOURCE = ROOT / "clients" / "js"
NAME = "lifecycle-tracker-client"
_PACK_SECS = 90.0


@dataclass(frozen=True)
class Package:
    """`folder` is one in which programs import the package; `build` has its sources, what was built, and the tests."""

    folder: Path
    build: Path
    files: tuple[str, ...]

    @property
    def installed(self) -> Path:
        return self.folder / "node_modules" / NAME


def need_node() -> None:
    """Skip the test where the package cannot be built."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not on PATH")
    if not (SOURCE / "node_modules" / "typescript").exists():
        pytest.skip("TypeScript is not installed: cd clients/js && npm install")


def pack(directory: Path) -> Package:
    """Build and pack a copy of the sources, without any network. Fails with what npm says."""
    build, folder = directory / "build", directory / "application"
    shutil.copytree(SOURCE, build, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (build / "node_modules").symlink_to(SOURCE / "node_modules")
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    said = execute(["npm", "pack", "--json", "--offline", "--silent", "--pack-destination", str(directory)], build)
    [packed] = json.loads(said[said.index("[") :])
    with tarfile.open(directory / packed["filename"]) as archive:
        archive.extractall(directory, filter="data")
    installed = folder / "node_modules" / NAME
    installed.parent.mkdir()
    (directory / "package").rename(installed)
    files = tuple(sorted(file["path"] for file in packed["files"]))
    return Package(folder, build, files)


def execute(command: list[str], folder: Path) -> str:
    """Return what a command prints. It must exit with 0."""
    run = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"npm_config_update_notifier": "false"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PACK_SECS,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
