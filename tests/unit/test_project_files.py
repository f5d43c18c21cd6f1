"""The files around the code: licence, metadata, constraints, Makefile, workflows and templates fit together."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lifecycle.local.redis_binary import OLDEST

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"]

# The text at apache.org/licenses/LICENSE-2.0.txt, with the appendix.
APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
PLACEHOLDER = "https://example" + ".com/lifecycle"
# Written apart, so that this file does not contain what it looks for.
REGISTRIES = [
    ".".join(words).encode()
    for words in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("crates", "io"),
        ("rubygems", "org"),
        ("golang", "org"),
        ("debian", "org"),
        ("docker", "io"),
    )
]


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def tracked() -> list[Path]:
    """Return the files that git knows. Skips the test outside of a clone."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a clone with git")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True, timeout=30)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def having(text: bytes) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in tracked() if text in path.read_bytes()}


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?! COVERED)", MAKEFILE, re.MULTILINE))


def make_targets_in(text: str) -> set[str]:
    """Return the targets that a text tells people or machines to make, as the first words of commands."""
    return set(re.findall(r"(?:^\s*|`|&& |run: )make ([a-z][\w-]*)", text, re.MULTILINE))


# The licence and the metadata


def test_the_licence_is_the_unmodified_apache_2() -> None:
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2_SHA256
    assert PROJECT["license"] == "Apache-2.0"
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])
    assert "No code was copied" in (ROOT / "NOTICE").read_text()


def test_classifiers_and_the_workflow_name_the_same_versions_of_python() -> None:
    prefix = "Programming Language :: Python :: 3."
    classified = {"3." + name.removeprefix(prefix) for name in PROJECT["classifiers"] if name.startswith(prefix)}
    matrix = read_yaml(GITHUB / "workflows" / "tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert set(matrix["python"]) == classified
    assert PROJECT["requires-python"] == f">={min(classified, key=Version)}"
    assert not [name for name in PROJECT["classifiers"] if name.startswith("License ::")], "the expression replaces it"


def test_the_workflow_runs_the_oldest_supported_server_and_extends_only_its_own_combinations() -> None:
    matrix = read_yaml(GITHUB / "workflows" / "tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    servers = [name.split() for name in matrix["server"] if name != "bundled"]
    assert min(Version(version).release[:2] for _, version in servers) == OLDEST
    assert {(name, Version(version).major) for name, version in servers} >= {
        ("redis", 7),
        ("redis", 8),
        ("valkey", 8),
        ("valkey", 9),
    }
    for extended in matrix["include"]:  # one that does not exist would be a job more
        assert extended["python"] in matrix["python"]
        assert extended["server"] in matrix["server"]


# The constraints


def requirements() -> list[Requirement]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    found = [Requirement(text) for listed in lists for text in listed]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def constraints() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pairs = [re.fullmatch(r"([\w.-]+)==([\w.+!-]+)", line) for line in lines]
    assert all(pairs), "each line is NAME==VERSION, without an address"
    return {canonicalize_name(pair[1]): Version(pair[2]) for pair in pairs if pair}


def test_the_constraints_satisfy_every_bound() -> None:
    fixed = constraints()
    wrong = {}
    for requirement in requirements():
        version = fixed.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            wrong[str(requirement)] = version
    assert wrong == {}
    assert "make constraints" in (ROOT / "constraints.txt").read_text().splitlines()[2]


def test_each_dependency_has_one_lower_bound() -> None:
    operators = {str(r): [bound.operator for bound in r.specifier] for r in requirements()}
    assert [name for name, found in operators.items() if found.count(">=") != 1] == []


def test_ci_and_the_image_use_the_constraints() -> None:
    assert "export PIP_CONSTRAINT=constraints.txt" in (ROOT / ".ci" / "run").read_text()
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "ENV PIP_CONSTRAINT=constraints.txt" in dockerfile
    assert set(re.findall(r"^FROM python:([\d.]+)", dockerfile, re.MULTILINE)) == {"3.11"}, "as the constraints"


# The Makefile


def test_help_lists_every_target() -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.split()) == targets()
    if shutil.which("make") is None:
        pytest.skip("make is not on PATH")
    helped = subprocess.run(["make"], cwd=ROOT, capture_output=True, check=True, text=True, timeout=30).stdout
    assert set(re.findall(r"^  ([\w-]+) +\S", helped, re.MULTILINE)) == targets()


def test_every_target_that_is_named_anywhere_exists() -> None:
    pages = [ROOT / "tests" / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / "constraints.txt"]
    files = [*pages, *GITHUB.rglob("*.yml"), *GITHUB.rglob("*.md")]
    unknown = {
        str(path.relative_to(ROOT)): made for path in files if (made := make_targets_in(path.read_text()) - targets())
    }
    assert unknown == {}
    assert make_targets_in("run: make gone\n`make ps`\nnone can make lint") == {"gone", "ps"}


# Workflows and templates


@named(WORKFLOWS)
def test_a_workflow_is_complete_and_may_do_little(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["name"] == path.stem
    assert workflow[True], "`on` is read as the YAML boolean"
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        assert all(re.search(r"@(v\d+|release/v\d+)$", step["uses"]) for step in job["steps"] if "uses" in step)
        paths = [step.get("with", {}).get("cache-dependency-path", "") for step in job["steps"]]
        assert all((ROOT / name).is_file() for listed in paths for name in listed.split())


def test_only_the_release_may_publish_and_only_a_tag_releases() -> None:
    assert {path.stem for path in WORKFLOWS} == {"lint", "release", "tests"}
    release = read_yaml(GITHUB / "workflows" / "release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}
    writers = {
        (path.stem, name)
        for path in WORKFLOWS
        for name, job in read_yaml(path)["jobs"].items()
        if "write" in job.get("permissions", {}).values()
    }
    assert writers == {("release", "publish")}
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}


@named(FORMS)
def test_an_issue_form_is_one_that_github_takes(path: Path) -> None:
    form = read_yaml(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "dropdown", "checkboxes"}
    ids = [field["id"] for field in fields]
    assert len(set(ids)) == len(ids)
    assert all(field["attributes"]["label"] for field in fields)


def test_an_issue_is_always_a_form_and_the_files_they_name_exist() -> None:
    assert {path.stem for path in FORMS} == {"bug_report", "feature_request"}
    assert read_yaml(GITHUB / "ISSUE_TEMPLATE" / "config.yml")["blank_issues_enabled"] is False
    texts = [path.read_text() for path in (*FORMS, GITHUB / "pull_request_template.md")]
    files = {name for text in texts for name in re.findall(r"\b[A-Z_]+\.md\b", text)}
    assert files >= {"SECURITY.md", "CHANGELOG.md"}
    assert all((ROOT / name).is_file() for name in files)


def test_dependabot_looks_where_there_is_something() -> None:
    updates = read_yaml(GITHUB / "dependabot.yml")["updates"]
    files = {
        "pip": "pyproject.toml",
        "github-actions": ".github/workflows/tests.yml",
        "docker": "Dockerfile",
        "docker-compose": "compose.yaml",
        "npm": "package.json",
    }
    assert {update["package-ecosystem"] for update in updates} == set(files)
    for update in updates:
        folder = ROOT / update["directory"].removeprefix("/")
        assert (folder / files[update["package-ecosystem"]]).is_file()


def test_the_hooks_run_what_make_lint_runs() -> None:
    [local] = read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    [recipe] = re.findall(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    command = r"[\w-]+(?: (?:check|format))?"
    linted = re.findall(rf"\$\(BIN\)/({command})", recipe)
    hooked = [re.findall(rf"^\.venv/bin/({command})", hook["entry"]) for hook in local["hooks"]]
    assert hooked == [[name] for name in linted]
    assert len(linted) == 5


# Addresses


def test_no_file_names_the_host_of_a_package_registry() -> None:
    found = {host.decode(): files for host in REGISTRIES if (files := having(host))}
    assert found == {}


def test_the_placeholder_address_is_only_where_it_must_be_replaced() -> None:
    assert having(PLACEHOLDER.encode()) <= {"pyproject.toml", "README.md", "SECURITY.md", "docs/release.md"}
    assert having(("security@example" + ".com").encode()) <= {"SECURITY.md"}
    if any(url.startswith(PLACEHOLDER) for url in PROJECT["urls"].values()):
        assert re.search(
            r"^# A placeholder: .*\n(#.*\n)*\[project\.urls\]", (ROOT / "pyproject.toml").read_text(), re.M
        )
