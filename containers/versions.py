"""Guard of the cache: a step whose source changed needs a new VERSION, or a recorded reason why results did not.

python -m containers.versions                     check (CI does)
python -m containers.versions record "REASON"     write step_digests.json anew
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from containers.contract import STEPS, canonical_json, load_step

RECORD = Path(__file__).with_name("step_digests.json")
ROOT = Path(__file__).parent.parent


def source_digest(module: str) -> str:
    """sha256 over a step module and every module of `containers` it imports, comments and docstrings left out."""
    digests = {name: _code_digest(_path(name)) for name in _closure(module)}
    return hashlib.sha256(canonical_json(digests)).hexdigest()


def problems() -> list[str]:
    """One line for every step whose recorded version or digest is not today's."""
    record = json.loads(RECORD.read_text())
    found = []
    for step, module in STEPS.items():
        known, version, digest = record.get(step, {}), load_step(step).VERSION, source_digest(module)
        if (known.get("version"), known.get("digest")) != (version, digest):
            found.append(
                f"{step}: the source changed since it was recorded with VERSION {known.get('version')}."
                f" Raise VERSION in {module} if results change, then: make step-digests"
                ' (REASON="why results are the same" when VERSION stays)'
            )
    return found


def record(reason: str) -> list[str]:
    """Write today's digests; nothing when a VERSION stayed without a reason: returns the steps that need one."""
    old = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    new = {}
    unexplained = []
    for step, module in STEPS.items():
        known = old.get(step, {})
        entry = {"version": load_step(step).VERSION, "digest": source_digest(module)}
        if entry["digest"] == known.get("digest") and entry["version"] == known.get("version"):
            new[step] = known
            continue
        if known.get("version") == entry["version"] and not reason:
            unexplained.append(step)
        new[step] = {**entry, **({"same_results_because": reason} if known.get("version") == entry["version"] else {})}
    if not unexplained:
        RECORD.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
    return unexplained


def _closure(module: str) -> list[str]:
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += _imports(_path(name))
    return sorted(seen)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "containers":
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [name for name in inner if _path(name).is_file()] or [node.module]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("containers."))


def _path(module: str) -> Path:
    return ROOT / Path(*module.split(".")).with_suffix(".py")


def _code_digest(path: Path) -> str:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body.pop(0)
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def main(arguments: list[str]) -> int:
    """Check, or record."""
    if arguments[:1] == ["record"]:
        unexplained = record(" ".join(arguments[1:]).strip())
        found = [
            f"{step}: VERSION stayed; say why results are the same: make step-digests REASON=..."
            for step in unexplained
        ]
    else:
        found = problems()
    print("\n".join(found) or "every step is as recorded")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
