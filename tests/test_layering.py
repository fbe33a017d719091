"""Who may import whom: the pure ring touches nothing outside, the two daemons never meet."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module or a package; each must exist, so that a rename cannot take one out of the test.
PURE = [
    *(
        "escra_common." + name
        for name in (
            "errors",
            "expiry",
            "frame",
            "framing",
            "helptext",
            "messages",
            "mounts",
            "seldom",
            "session",
            "units",
        )
    ),
    *(
        "escra_agent." + name
        for name in (
            "caps",
            "counters",
            "dockeranswers",
            "foresight",
            "growth",
            "labels",
            "memoryplan",
            "memoryshape",
            "periodgrid",
            "perioduse",
            "planner",
            "quotas",
            "sampler",
            "unitproperties",
        )
    ),
    *(
        "escra_controller." + name
        for name in (
            "absence",
            "allocator",
            "bounds",
            "contention",
            "cpuheadroom",
            "demand",
            "demo.scene",
            "due",
            "doctor.facts",
            "doctor.judgehost",
            "doctor.judgeservices",
            "doctor.view",
            "engine",
            "events",
            "history",
            "imagined",
            "ledger",
            "membership",
            "memory",
            "memoryallocator",
            "memoryheadroom",
            "memoryorders",
            "memoryreclaim",
            "metrics.gathering",
            "metrics.series",
            "metrics.tally",
            "policy",
            "pools",
            "queries",
            "recent",
            "recorder",
            "recording",
            "refills",
            "registry",
            "render",
            "report.model",
            "report.page",
            "report.style",
            "report.svg",
            "report.words",
            "replay",
            "rounds",
            "rows",
            "shadow",
            "sharing",
            "simulated",
            "state",
            "storage.values",
            "strangers",
            "top.cells",
            "top.columns",
            "top.drawing",
            "top.items",
            "top.model",
            "turns",
            "views",
            "whatif",
            "would",
        )
    ),
]
# What only computes.  Everything else, known or new, reaches out until someone says otherwise.
# fmt: off
HARMLESS = {
    "__future__", "abc", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime", "difflib",
    "enum", "fractions", "functools", "heapq", "html", "itertools", "json", "math", "operator", "random",
    "re", "statistics", "string", "struct", "textwrap", "types", "typing", "unicodedata", "msgpack",
    "msgspec",
}
# fmt: on
PACKAGES = ("escra_common", "escra_agent", "escra_controller")


def sources(module: str) -> list[Path]:
    """The files of a module or package; none when it does not exist."""
    path = ROOT / module.replace(".", "/")
    return (
        sorted(path.rglob("*.py")) if path.is_dir() else [p for p in [path.with_suffix(".py")] if p.is_file()]
    )


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that the file names in an import, wherever it stands, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            assert node.module is not None
            # `from package import x` may import a module of that name.
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def within(name: str, modules: list[str]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def test_every_pure_module_exists() -> None:
    assert [module for module in PURE if not sources(module)] == []


@pytest.mark.parametrize("module", PURE)
def test_the_pure_ring_imports_only_itself_and_what_computes(module: str) -> None:
    # A package's own names (`__version__`) are as pure as its empty __init__.
    allowed = [*PURE, *(f"{package}.__version__" for package in PACKAGES)]
    outside = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(module)
        for name, line in imports(path)
        if name.partition(".")[0] not in HARMLESS and not within(name, allowed)
    ]
    assert outside == []


@pytest.mark.parametrize(
    ("package", "strangers"),
    [
        ("escra_common", ["escra_agent", "escra_controller"]),
        ("escra_agent", ["escra_controller"]),
        ("escra_controller", ["escra_agent"]),
    ],
)
def test_the_daemons_share_only_what_is_common(package: str, strangers: list[str]) -> None:
    met = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for name, line in imports(path)
        if within(name, [*strangers, "tests", "benchmarks"])
    ]
    assert met == []


def test_package_inits_run_nothing() -> None:
    for package in PACKAGES:
        tree = ast.parse((ROOT / package / "__init__.py").read_text())
        assert all(isinstance(node, ast.Expr | ast.Assign | ast.ImportFrom) for node in tree.body), package


def test_no_file_names_the_place_it_was_written_in() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    workplace = b"/" + b"work/"
    files = [ROOT / name for name in tracked.decode().split("\0") if name]
    assert files
    assert [str(path) for path in files if path.is_file() and workplace in path.read_bytes()] == []
