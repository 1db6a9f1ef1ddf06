"""Figures of the source code, one line each: python benchmarks/structure.py [--root FOLDER]. It runs none of it."""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

PACKAGES = ("flows", "tasks", "containers")
REPEATED = 6
"""Lines of a passage that counts as repeated; blank lines, imports and docstrings do not count."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(root: Path) -> dict[str, ast.Module]:
    """Parsed modules by dotted name, without the empty `__init__.py`."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    named = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    return {name: ast.parse(path.read_text()) for name, path in named.items() if path.stat().st_size}


def imports(tree: ast.Module, known: set[str]) -> set[str]:
    """The project's modules that a module imports, also inside functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known or {node.module} & known
    return found


def circle(trees: dict[str, ast.Module]) -> list[str]:
    """Modules of one circle of imports; empty where there is none."""
    try:
        TopologicalSorter({name: imports(tree, set(trees)) for name, tree in trees.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def functions(trees: dict[str, ast.Module]) -> list[Function]:
    """Every function and method."""
    return [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, Function)]


def used_once(trees: dict[str, ast.Module]) -> tuple[int, int]:
    """Private functions that their module names once beside the definition, and all private functions."""
    once = everything = 0
    for tree in trees.values():
        uses = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        uses += Counter(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        private = [node for node in functions({"": tree}) if node.name.startswith("_") and node.name[:2] != "__"]
        everything += len(private)
        once += sum(uses[node.name] == 1 for node in private)
    return once, everything


def shared_class_names(trees: dict[str, ast.Module]) -> list[str]:
    """Names that more than one class has. `Params` and `Metrics` are the contract's names in every step."""
    names = Counter(node.name for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef))
    return sorted(name for name, count in names.items() if count > 1 and name not in ("Params", "Metrics"))


def repeated_passages(root: Path, trees: dict[str, ast.Module]) -> int:
    """Passages of REPEATED lines and more of code that stand in two places, each place's longest run counted once."""
    places: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    code = {name: list(code_lines(root, name, tree)) for name, tree in trees.items()}
    for name, lines in code.items():
        for start in range(len(lines) - REPEATED + 1):
            places[tuple(lines[start : start + REPEATED])].append((name, start))
    twice = {place for found in places.values() if len(found) > 1 for place in found}
    return sum((name, start - 1) not in twice for name, start in twice)


def code_lines(root: Path, name: str, tree: ast.Module) -> Iterator[str]:
    """Lines of code of a module, stripped, without blank ones, comments, imports and docstrings."""
    left_out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        ):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    source = (root / Path(*name.split("."))).with_suffix(".py").read_text()
    for number, line in enumerate(source.splitlines(), 1):
        if number not in left_out and line.strip() and not line.strip().startswith("#"):
            yield line.strip()


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    root = parser.parse_args().root
    trees = modules(root)
    lengths = {name: len((root / Path(*name.split("."))).with_suffix(".py").read_text().splitlines()) for name in trees}
    every = functions(trees)
    sizes = sorted((node.end_lineno or 0) - node.lineno + 1 for node in every)
    once, private = used_once(trees)
    tests = sum(len(path.read_text().splitlines()) for path in (root / "tests").rglob("*.py"))
    figures = {
        "files": len(trees),
        "folders": len({name.rpartition(".")[0] for name in trees}),
        "product lines": sum(lengths.values()),
        "test lines": tests,
        "lines of a file, median": round(median(lengths.values())),
        "lines of a file, longest": max(lengths.values()),
        "functions": len(every),
        "lines of a function, median": round(median(sizes)),
        "lines of a function, longest": sizes[-1],
        "private functions": private,
        "private functions used once": once,
        "class names of two classes": len(shared_class_names(trees)),
        "modules in a circle of imports": len(circle(trees)),
        f"repeated passages of {REPEATED} lines": repeated_passages(root, trees),
    }
    for name, value in figures.items():
        print(f"{name:<36} {value:8,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
