"""A fingerprint of code: the same for the same code whatever the Python and the comments, another one for other code."""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def canonical(node) -> object:
    """A syntax tree as nested lists, the same from Python 3.10 to 3.13: no docstrings, no empty fields, nothing but what the code says."""
    if isinstance(node, list):
        return [canonical(n) for n in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        (name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name not in ("ctx", "kind", "type_comment")
    ]
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
        fields = [(name, value[1:] if name == "body" else value) for name, value in fields]
    return [type(node).__name__, [[name, canonical(value)] for name, value in fields]]


@cache
def code_hash(script: Path) -> str:
    """12 hex digits that stand for the code of a script and of the parts of common/model that it imports, directly or not."""
    seen, waiting, trees = set(), [script], []
    while waiting:
        path = waiting.pop(0)
        if path in seen or not path.exists():
            continue
        seen.add(path)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        trees.append(canonical(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("common.model"):
                waiting.append(ROOT / (node.module.replace(".", "/") + ".py"))
                waiting += [ROOT / node.module.replace(".", "/") / name for name in ("__init__.py", *(f"{a.name}.py" for a in node.names))]
    return hashlib.sha256(repr(trees).encode()).hexdigest()[:12]
