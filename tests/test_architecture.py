"""The house: which room may call into which, and how large the rooms are. Read from the source, not from what ran."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import expunge

ROOT = Path(expunge.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# A room may use itself, those before it in its wing, and what the wing stands on; from the ground up.
GROUND = [
    "errors",
    ("fields", "largest", "logits", "optimizers", "structure"),
    ("hold", "modes", "partial", "proximal", "salient", "layer_choice", "weights"),
]
GROUND += [("data", "models")]
GROUND += [("request", "task", "region", "io", "run", "layout", "norms", "source")]
GROUND += [
    "explain",
    ("surrogate", "loss", "untrained", "gone"),
    "batching",
    "phase",
    "feed",
    "watch",
    "memory",
    "outputs",
]
GROUND += ["descend", "artifact", "recipe", "pool"]
ABOVE = ["method", ("methods", "registry"), "unlearning"]
MAIN = [*GROUND, *ABOVE]
AUDIT = [*GROUND, "audit"]
REPORT = ["errors", "report"]
WHOLE = [*MAIN, "report", "audit", "dossier", "experiment", "retrace", "conduct", "cli"]

# `expunge` and `expunge.audit` can be called and import lazily by name.
EXEMPT = {"", "audit"}
# `Method.then` makes a `Chain`, which is a method itself.
ALLOWED = {("method", "methods.chain")}


def module_of(path: Path) -> str:
    """`data.rows` for `expunge/data/rows.py`, `data` for `expunge/data/__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """The modules of expunge that a file imports, on top or inside a function; `` is the package itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            if node.module is None or node.module.split(".")[0] != "expunge":
                continue
            base = node.module.removeprefix("expunge").removeprefix(".")
            for name in node.names:
                inner = f"{base}.{name.name}".removeprefix(".")
                found.add(inner if inner in MODULES else base)
        elif isinstance(node, ast.Import):
            names = [n.name for n in node.names if n.name.split(".")[0] == "expunge"]
            found |= {n.removeprefix("expunge").removeprefix(".") for n in names}
    return found - {module_of(path)}


def room(module: str) -> str:
    return module.split(".")[0]


def reachable(plan: list) -> dict[str, set[str]]:
    """What each room of a wing may import: itself, its neighbours on the same floor, and all below."""
    allowed, below = {}, set()
    for floor in plan:
        rooms = {floor} if isinstance(floor, str) else set(floor)
        below = below | rooms
        allowed |= {r: below for r in rooms}
    return allowed


def allowed_for(name: str) -> set[str]:
    for wing in (REPORT, AUDIT) if name in ("report", "audit") else (MAIN, WHOLE):
        if name in reachable(wing):
            return reachable(wing)[name]
    return set()


def test_every_room_has_a_place_in_the_house():
    assert {room(m) for m in MODULES} - {""} <= {r for f in WHOLE for r in ([f] if isinstance(f, str) else f)}


@pytest.mark.parametrize("module", [m for m in MODULES if m not in EXEMPT])
def test_imports_go_one_way(module):
    may = allowed_for(room(module))
    wrong = {other for other in imports(MODULES[module]) if other and room(other) not in may}
    wrong -= {there for here, there in ALLOWED if here == module}
    assert not wrong, f"{module} must not import {', '.join(sorted(wrong))}"


def test_the_exceptions_are_still_needed():
    assert all(there in imports(MODULES[here]) for here, there in ALLOWED)


def test_the_rule_would_see_a_wrong_import(tmp_path):
    """The control: an import inside a function, of a module by its package."""
    path = tmp_path / "wrong.py"
    path.write_text("def f():\n    from expunge.methods import finetune\n    import expunge.registry\n")
    names = {m for m in ("methods.finetune", "registry") if room(m) not in allowed_for("audit")}
    assert names == {"methods.finetune", "registry"}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{n.name}" for n in node.names}
    assert "expunge.methods.finetune" in found


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {m: {o for o in imports(p) if o and o in MODULES} for m, p in MODULES.items() if m not in EXEMPT}
    graph["method"] -= {there for _, there in ALLOWED}
    graph["methods.chain"] -= {"registry"}  # chains are read from plain data, inside a function
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path, module])
        if module not in done:
            for other in graph.get(module, ()):
                if not other.startswith(f"{module}.") and not module.startswith(f"{other}."):
                    visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", [m for m in MODULES if m not in EXEMPT])
def test_the_package_itself_is_asked_for_its_version_only(module):
    """`import expunge` gives every public name, and so a way around the arrows."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    uses = {
        n.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "expunge"
    }
    assert uses <= {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_are_small(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    limit = 190 if module_of(path) == "descend" else 300
    assert lines <= limit, f"{lines} lines; split it"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_nothing_that_could_run_code_or_be_switched_off(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    classes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    safe_loaders = {c.name for c in classes if [ast.unparse(b) for b in c.bases] == ["yaml.SafeLoader"]}
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert never guards input"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "joblib.load"), called
            if called == "yaml.load":
                assert ast.unparse(node.args[1]) in safe_loaders, "yaml.load needs a loader derived from SafeLoader"
            if called == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            for k in node.keywords:
                assert not (k.arg == "allow_pickle" and ast.unparse(k.value) != "False"), "allow_pickle"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or "", *(n.name for n in node.names)]
            assert not {n.split(".")[0] for n in names} & {"torchvision", "timm", "pickle", "dill", "cloudpickle"}
    assert "weights_only=False" not in text


def test_importing_the_package_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, expunge, expunge.cli; dir(expunge); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT.parent)}).returncode == 0


@pytest.mark.parametrize("name", expunge.__all__)
def test_every_public_name_is_there_and_said(name):
    value = getattr(expunge, name)
    assert name == "__version__" or value.__doc__
    text = (ROOT / "__init__.py").read_text(encoding="utf-8")
    assert name == "__version__" or re.search(rf"^    from expunge.* import .*\b{name}\b", text, re.M)


def test_a_public_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="unlern"):
        _ = expunge.unlern
