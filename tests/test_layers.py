"""The direction of imports: the twin knows nothing of the bench, and lower parts nothing of higher ones."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_IN_THE_TWIN = {
    "asyncio", "bench", "os", "prometheus_client", "pymodbus", "pyudev", "select", "serial", "signal",
    "socket", "subprocess", "systemd", "threading", "time", "uvloop",
}  # fmt: skip

# From low to high: a module may import its own level and lower ones. What is in no level is a leaf
# that anything may import and that imports nothing of ours but other leaves.
SITE_TOWER = [
    ["dertwin.stepping"],
    ["dertwin.physics"],
    ["dertwin.devices"],
    ["dertwin.events", "dertwin.overrides", "dertwin.environment"],
    ["dertwin.config", "dertwin.config_links"],
    ["dertwin.faults"],
    ["dertwin.site"],
    ["dertwin.scenario"],
]
REGISTER_TOWER = [["dertwin.registers"], ["dertwin.modbus"]]
LEAVES = {
    "dertwin", "dertwin.schema", "dertwin.port_match", "dertwin.bindings", "dertwin.config_errors",
    "dertwin.documents", "dertwin.functions",
}  # fmt: skip
PROMISED_EXCEPTION = "dertwin.main"  # `python -m dertwin.main` starts the bench's command


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            # `from dertwin.physics import battery` names a module too
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(module: str, tower: list[list[str]]) -> int | None:
    for index, names in enumerate(tower):
        if any(module == name or module.startswith(name + ".") for name in names):
            return index
    return None


TWIN = [(name, path) for name, path in modules("dertwin") if name != PROMISED_EXCEPTION]


@pytest.mark.parametrize(("name", "path"), TWIN, ids=[name for name, _ in TWIN])
def test_the_twin_imports_nothing_of_the_host(name: str, path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path)} & NOT_IN_THE_TWIN


@pytest.mark.parametrize(("name", "path"), TWIN, ids=[name for name, _ in TWIN])
def test_no_module_imports_a_higher_one(name: str, path: Path) -> None:
    ours = {module for module in imports(path) if module.split(".")[0] == "dertwin"}
    for tower, other in ((SITE_TOWER, REGISTER_TOWER), (REGISTER_TOWER, SITE_TOWER)):
        mine = level(name, tower)
        if mine is None:
            continue
        for module in ours:
            theirs = level(module, tower)
            assert theirs is None or theirs <= mine, f"{name} imports {module}"
            assert level(module, other) is None, f"{name} imports {module} of the other tower"
    if name in LEAVES:
        assert all(level(module, SITE_TOWER) is level(module, REGISTER_TOWER) is None for module in ours)


def test_every_module_of_the_twin_has_its_place() -> None:
    placeless = [
        name
        for name, _ in TWIN
        if name not in LEAVES and level(name, SITE_TOWER) is None and level(name, REGISTER_TOWER) is None
    ]
    assert placeless == []
