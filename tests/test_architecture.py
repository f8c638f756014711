"""The floors of the house: an import graph read from the source, without importing anything."""
import ast
import statistics
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "k3dn_plugin"

# From top to bottom; a file imports from its own floor and from those below it.
FLOORS = ("__main__", "commands", "demo", "doctor", "bridges", "comparison", "analysis", "training", "evaluation",
          "zoo", "inference", "simulation", "data", "losses", "archs", "modules", "layers", "options", "option_files",
          "option_schema", "registry", "array_files", "files", "errors", "console")
LONGEST = 400
# Files that are no component are an idea each: half of them are longer than this.
MEDIAN = 100
COMPONENTS = ("modules/", "archs/", "losses/", "commands/", "zoo/formats/", "data/preparation/", "evaluation/metrics/",
              "evaluation/protocols/")
# Slow or optional packages may be imported inside a function, with a word why; ours only in commands, in an __init__
# that hands names out lazily, and a bridge, whose import connects it.
LAZY_FLOORS = ("commands",)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name):
    """`(module, line, inside a function)` of every import of ours in a file."""
    path = FILES[name]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside.update(id(child) for child in ast.walk(node) if isinstance(child, (ast.Import, ast.ImportFrom)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import absolutely"
            found = [f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in FILES else node.module
                     for alias in node.names]
        else:
            continue
        for module in dict.fromkeys(found):
            if module.split(".")[0] == "k3dn_plugin":
                yield module, node.lineno, id(node) in inside


GRAPH = {name: list(imports(name)) for name in FILES}


def floor(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_file_is_on_a_floor():
    assert {floor(name) for name in FILES} - {None} == set(FLOORS)


def test_no_file_imports_from_a_floor_above():
    """Also not inside a function; the package's own __init__ hands names out lazily, and reads none at its top."""
    upward = [f"{name}:{line} imports {module}" for name, found in GRAPH.items() if floor(name)
              for module, line, _ in found
              if floor(module) and FLOORS.index(floor(module)) < FLOORS.index(floor(name))]
    assert not upward, "\n".join(upward)


def test_no_circles():
    below = {name: {module for module, _, _ in found if module in FILES} - {name} for name, found in GRAPH.items()}
    done, way = set(), []

    def visit(name):
        assert name not in way, " -> ".join([*way[way.index(name):], name])
        if name in done:
            return
        way.append(name)
        for other in sorted(below[name]):
            visit(other)
        way.pop()
        done.add(name)

    for name in below:
        visit(name)


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_inside_functions_have_a_reason(name):
    """A comment on the line or above it says why; imports of ours are lazy in commands alone."""
    lines = FILES[name].read_text(encoding="utf-8").splitlines()
    tree = ast.parse("\n".join(lines))
    for function in (n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))):
        for node in ast.walk(function):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            first = node.lineno - 1
            while first > 0 and lines[first - 1].strip().startswith(("import ", "from ")):
                first -= 1
            reason = any("#" in line for line in lines[max(first - 1, 0):node.end_lineno]) or (
                # a docstring or comment just above the group
                lines[max(first - 1, 0)].strip().startswith("#"))
            assert reason, f"{FILES[name]}:{node.lineno}: say in a comment why this is imported inside a function"
    for module, line, inside in GRAPH[name]:
        if inside and floor(name) not in LAZY_FLOORS and not (
                FILES[name].name == "__init__.py" or module.startswith("k3dn_plugin.bridges")):
            raise AssertionError(f"{FILES[name]}:{line}: {module} is ours: import it at the top")


def test_no_file_is_too_long():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES.items()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


def test_helpers_of_a_few_lines_live_with_what_they_serve():
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in FILES.values()
               if path.name != "__init__.py" and not path.relative_to(PACKAGE).as_posix().startswith(COMPONENTS)]
    assert statistics.median(lengths) > MEDIAN


def loaded_by(code):
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, sep='\\n')"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name for name in done.stdout.split() if name.startswith("k3dn_plugin")}


@pytest.mark.parametrize("code, never", [
    ("import k3dn_plugin.inference.files, k3dn_plugin.inference.frames, k3dn_plugin.zoo.weights",
     ("training", "evaluation", "comparison")),
    ("from k3dn_plugin.registry import METRICS; METRICS.names()",
     ("evaluation.protocols", "evaluation.diagnostics", "evaluation.map_metrics", "comparison", "training")),
    ("from k3dn_plugin.registry import MAP_METRICS; MAP_METRICS.names()", ("evaluation.protocols", "comparison",
                                                                            "training")),
    ("from k3dn_plugin.registry import PROTOCOLS; PROTOCOLS.names()", ("evaluation.results", "comparison", "training",
                                                                        "zoo")),
    ("from k3dn_plugin.registry import DATASETS; DATASETS.names()", ("data.preparation", "data.raw", "doctor", "zoo",
                                                                      "training", "evaluation")),
    ("from k3dn_plugin.data import open_store", ("data.preparation", "doctor", "simulation")),
])
def test_what_is_loaded(code, never):
    found = loaded_by(code)
    wrong = [name for name in found for part in never
             if name == f"k3dn_plugin.{part}" or name.startswith(f"k3dn_plugin.{part}.")]
    assert not wrong, sorted(wrong)


def test_components_are_found_in_their_own_folders():
    """The packages of the registries do not overlap, so that asking one never loads another's."""
    from k3dn_plugin.registry import REGISTRIES
    packages = list(chain.from_iterable(registry.packages for registry in REGISTRIES.values()))
    assert not [(a, b) for a in packages for b in packages if a != b and b.startswith(a + ".")]
    assert len(set(packages)) == len(packages)
