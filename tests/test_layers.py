"""The shape of the code holds: every module keeps to its layer."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

grimp = pytest.importorskip("grimp")  # what import-linter stands on


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of pyproject.toml over the package in `root`, in a process of its own."""
    script = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports({}))"
    options = f"config_filename={str(ROOT / 'pyproject.toml')!r}, no_cache=True"
    return subprocess.run(
        [sys.executable, "-c", script.format(options)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_module_keeps_to_its_layer():
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_command_line_uses_only_the_public_face():
    graph = grimp.build_graph("pagestore", cache_dir=None)
    command_line = {"pagestore.cli"} | graph.find_descendants("pagestore.cli")
    allowed = command_line | {"pagestore", "pagestore.sqlite"}
    strayed = {
        (module, imported)
        for module in command_line
        for imported in graph.find_modules_directly_imported_by(module) - allowed
    }
    assert strayed == set()


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors", "from pagestore import store"),
        ("format", "from pagestore.kernel import anything"),
        ("store", "import pagestore.cli"),
        ("stray", ""),
        ("pagetable/stack", "from pagestore.pagetable import nodes"),
    ],
)
def test_the_contracts_notice(tmp_path, module, line):
    """A contract that cannot fail says nothing: break each rule once in a toy package."""
    package = tmp_path / "pagestore"
    names = ["__init__", "errors", "format", "kernel", "store", "cli/__init__", "cli/log"]
    names += [f"pagetable/{path.stem}" for path in (ROOT / "pagestore/pagetable").glob("*.py")]
    for name in names:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").touch()
    assert lint_imports(tmp_path).returncode == 0

    (package / f"{module}.py").write_text(line + "\n")
    run = lint_imports(tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
