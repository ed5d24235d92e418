"""Environments: what is asked for is locked, what is locked is exact, what is imported is there."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import lock_environments
import pytest
import set_up
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from study_runs import load_rules

ROOT = Path(__file__).parents[1]
ENVS = ROOT / "envs"
WORKFLOW = ROOT / "workflow"
STAGES = lock_environments.STAGES

#: Modules of packages that differ between a laptop and a GPU machine.
DISTRIBUTIONS = {"vllm": "vllm"}
CPU_STAGES = [name for name in lock_environments.names() if name.startswith("cpu/")]
DEPLOYED = [*STAGES, *CPU_STAGES]


def wanted(name: str) -> list[Requirement]:
    return [Requirement(line.split("#")[0]) for line in lock_environments.requirements(name)]


def locked(name: str) -> dict[str, list[Requirement]]:
    """The lock's entries by package."""
    text = (ENVS / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[Requirement]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line.split(" --hash")[0].strip())
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


@pytest.mark.parametrize("name", lock_environments.names())
def test_what_is_asked_for_is_locked(name):
    lock = locked(name)
    for requirement in wanted(name):
        if requirement.name == "torch" and name.startswith(("laptop", "cpu/")):
            continue  # its CPU build is installed first, see tools/set_up.py
        versions = {next(iter(entry.specifier)).version for entry in lock[canonicalize_name(requirement.name)]}
        assert any(requirement.specifier.contains(version) for version in versions), requirement


@pytest.mark.parametrize("name", lock_environments.names())
def test_everything_is_exact(name):
    for requirement in [*wanted(name), *(entry for entries in locked(name).values() for entry in entries)]:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        assert "*" not in specifier.version, requirement


@pytest.mark.parametrize("name", lock_environments.names())
def test_locks_hold_hashes_and_no_place(name):
    text = (ENVS / f"{name}.txt").read_text(encoding="utf-8").split("\n", 1)[1]
    for entry in re.split(r"\n(?=\S)", text.strip()):
        assert re.fullmatch(r"\S+==\S+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\s*", entry), entry[:200]


def test_no_lock_of_a_machine_without_gpu_holds_cuda():
    for name in ("laptop", "laptop-evaluation", *CPU_STAGES):
        packages = locked(name)
        assert not {"torch", "triton", "torchvision", "torchaudio", "torchcodec"} & set(packages)
        assert not [package for package in packages if package.startswith(("nvidia", "cuda"))]
        assert set_up.pinned(f"{Path(name).name}.in", "torch") == "torch==2.13.0"


def test_math_verify_stands_twice():
    assert str(locked("verification")["math-verify"][0].specifier) == "==0.9.0"
    assert str(locked("laptop")["math-verify"][0].specifier) == "==0.9.0"
    assert str(locked("evaluation")["math-verify"][0].specifier) == "==0.5.2"
    assert str(locked("laptop-evaluation")["math-verify"][0].specifier) == "==0.5.2"


@pytest.mark.parametrize("name", CPU_STAGES)
def test_with_and_without_conda_a_stage_runs_on_the_same_packages(name):
    text, laptop = (
        (ENVS / f"{lock}.txt").read_text(encoding="utf-8") for lock in (name, lock_environments.laptop_of(name))
    )
    entries = lock_environments.entries_of(text)
    for package, own in entries.items():
        assert own == lock_environments.entries_of(laptop)[package]
    assert len(entries) > 50


@pytest.mark.parametrize("stage", STAGES)
def test_a_gpu_machine_has_the_versions_of_a_laptop(stage):
    laptop = locked(lock_environments.laptop_of(stage))
    for package, (requirement, *_) in locked(stage).items():
        if package in laptop and package not in lock_environments.APART:
            assert requirement.specifier in [entry.specifier for entry in laptop[package]], package


@pytest.mark.parametrize("name", DEPLOYED)
def test_what_snakemake_wants_beside_a_lock_is_as_it_was_written(name):
    """The post-deploy script, the digests in the yaml, and for machines without a GPU the stage's own interpreter."""
    for path, text in lock_environments.deployment(name).items():
        assert path.read_text(encoding="utf-8") == text, "run `make lock`"
    assert (ENVS / f"{name}.yaml").read_text(encoding="utf-8").count("- nodefaults") == 1


@pytest.mark.parametrize("name", DEPLOYED)
def test_a_stages_pin_file_holds_its_yaml(name):
    pins = (ENVS / f"{name}.linux-64.pin.txt").read_text(encoding="utf-8").splitlines()
    urls = [line for line in pins if line and not line.startswith(("#", "@"))]
    assert "@EXPLICIT" in pins
    for url in urls:
        assert re.fullmatch(r"https://\S+/(linux-64|noarch)/[\w.-]+\.(conda|tar\.bz2)#[0-9a-f]{32}", url), url
    packages = re.findall(r"- (\w+) =(\S+)", (ENVS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert {package for package, _ in packages} == {"python", "pip"}
    for package, version in packages:
        assert any(f"/{package}-{version}-" in url for url in urls), package


def test_a_miniature_needs_no_gpu_build_and_every_other_study_takes_it():
    """Every conda environment of every rule of the two configurations, as Snakemake sees them."""
    used = {}
    for name in ("test", "paper"):
        rules = load_rules(ROOT / "config" / f"{name}.yaml").values()
        used[name] = {rule["environment"] for rule in rules if rule["environment"]}
    cpu = {name for name in used["test"] if "envs/cpu/" in name}
    assert {Path(name).stem for name in cpu} == {Path(name).name for name in CPU_STAGES}
    assert not {name for name in used["paper"] if "envs/cpu/" in name}
    assert {Path(name).stem for name in used["paper"]} == set(STAGES)


def sources(path: Path) -> dict[Path, ast.Module]:
    """A script and the project's own modules that it needs, parsed."""
    found: dict[Path, ast.Module] = {}
    queue = [path]
    while queue:
        path = queue.pop()
        if path not in found:
            found[path] = ast.parse(path.read_text(encoding="utf-8"))
            own = (WORKFLOW / f"{name.replace('.', '/')}.py" for name in modules(found[path]))
            queue += [file for file in own if file.is_file()]
    return found


def modules(tree: ast.Module) -> set[str]:
    """The modules that a file imports, by their full names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def imported(path: Path) -> set[str]:
    """Modules from outside the standard library that a script needs, through the project's own modules."""
    names = {name for tree in sources(path).values() for name in modules(tree) if not name.startswith("whichteacher")}
    own = {name for name in names if (WORKFLOW / f"{name.replace('.', '/')}.py").is_file()}
    return {name.split(".")[0] for name in names - own} - set(sys.stdlib_module_names)


def asked_for_versions(path: Path) -> set[str]:
    """Packages whose versions a script tells: arguments of ``versions`` and lists called ``_PACKAGES``."""
    found: list[ast.expr] = []
    for tree in sources(path).values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "versions":
                found += node.args
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_PACKAGES":
                found += getattr(node.value, "elts", [])
    return {node.value for node in found if isinstance(node, ast.Constant)}


def rules() -> dict[str, str]:
    """Rule -> its text, for rules that do something; the others are names for targets."""
    found = {}
    for file in sorted((WORKFLOW / "rules").glob("*.smk")):
        for text in re.split(r"^\s*(?:use )?rule ", file.read_text(encoding="utf-8"), flags=re.M)[1:]:
            if re.search(r"^\s+(script|shell):", text, re.M):
                found[text.split(":")[0]] = text
    return found


@pytest.mark.parametrize("rule", rules())
def test_a_rules_environment_holds_what_its_script_imports(rule):
    stage = re.search(r'environment\("(\w+)"\)', rules()[rule])[1]
    assert stage in STAGES
    providers = importlib.metadata.packages_distributions()
    lock = locked(stage)
    for module in imported(WORKFLOW / "scripts" / f"{rule}.py"):
        names = [DISTRIBUTIONS[module]] if module in DISTRIBUTIONS else providers.get(module, [module])
        assert any(canonicalize_name(name) in lock for name in names), f"add {module} to envs/{stage}.in"
    for package in asked_for_versions(WORKFLOW / "scripts" / f"{rule}.py"):
        assert canonicalize_name(package) in lock, f"{rule} tells the version of {package}, which envs/{stage}.in lacks"


def test_a_stamp_belongs_to_its_lock_and_place(tmp_path):
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    assert not set_up.is_ready(venv, "laptop")
    (venv / set_up.STAMP).write_text(set_up.fingerprint(venv, "laptop"))
    assert not set_up.is_ready(venv, "laptop"), "the interpreter is missing"
    (venv / "bin" / "python").symlink_to(sys.executable)
    assert set_up.is_ready(venv, "laptop")
    assert not set_up.is_ready(venv, "laptop-evaluation")
    assert not set_up.is_ready(venv.rename(tmp_path / "moved"), "laptop"), "scripts hold the old path"


def test_too_little_room_is_one_clear_line():
    with pytest.raises(SystemExit, match=r"GiB are free in .*, 999999 GiB are needed: make room"):
        set_up.check_machine(999_999)


def test_a_missing_module_of_python_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit, match=r"Python's module ensurepip is missing: install it .*python3-venv"):
        set_up.check_machine(0)


def test_a_machine_without_packages_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(set_up.platform, "machine", lambda: "arm64")
    with pytest.raises(SystemExit, match="the packages exist for Linux on x86_64, this is linux on arm64: use"):
        set_up.check_machine(0)


def test_a_failing_step_is_one_clear_line(capfd):
    with pytest.raises(SystemExit, match=r"could not do this: install it\. The lines above say why; then run it again"):
        set_up.run("install it", "sh", "-c", "echo no such index >&2; exit 3")
    assert "no such index" in capfd.readouterr().err


def test_pip_settings_become_options_of_uv(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path} {tmp_path}/more")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert set_up.uv_sources() == ["--find-links", str(tmp_path), "--find-links", f"{tmp_path}/more"]


def build_images(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "build_images.py"), *arguments]
    environment = {**os.environ, "PATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("engine", ["docker", "apptainer"])
def test_every_environment_has_an_image(engine, tmp_path):
    """A program that stands for the engine and says what it was asked."""
    program = tmp_path / engine
    program.write_text('#!/bin/sh\necho "$0 $@"\n', encoding="utf-8")
    program.chmod(0o755)
    told = build_images(tmp_path)
    assert told.returncode == 0, told.stderr
    for name in DEPLOYED:
        assert f"--build-arg STAGE={name} " in told.stdout
    assert ("envs/apptainer.def" if engine == "apptainer" else "--file envs/Dockerfile .") in told.stdout
    assert "whichteacher-generation-cpu" in told.stdout


def test_without_an_engine_or_with_a_wrong_name_no_image_is_one_clear_line(tmp_path):
    assert "no docker, no podman, no apptainer here" in build_images(tmp_path).stderr
    assert "no such environment: plotting; there are corpus" in build_images(tmp_path, "plotting").stderr


@pytest.mark.parametrize("recipe", ["Dockerfile", "apptainer.def"])
def test_an_image_is_given_all_that_its_installation_reads(recipe):
    """The post-deploy scripts read the lists beside them and tools/set_up.py; the packages need no more of the project."""
    text = (ENVS / recipe).read_text(encoding="utf-8")
    python = re.search(r"python =(\S+)", (ENVS / "figures.yaml").read_text(encoding="utf-8"))[1]
    assert re.search(rf"(?i)from:? python:{re.escape(python)}-", text)
    assert re.search(r"^(COPY| )\s*envs /opt/whichteacher/envs$", text, re.M)
    assert re.search(r"^(COPY| )\s*tools/set_up.py /opt/whichteacher/tools/set_up.py$", text, re.M)
    assert "post-deploy.sh" in text and "STAGE" in text
