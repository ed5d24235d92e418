"""The doctor: each check sees what is wrong with a machine that was broken for it, and says nothing of one that is well."""

import json
import math
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import doctor
import pytest
import yaml
from safetensors.numpy import save_file
from study_runs import CONFIG, ROOT, command

from whichteacher.config import UNPINNED, Study, check_config
from whichteacher.doctor import disk, examination, hardware, models, rendering, services, tools
from whichteacher.doctor.findings import GIB, Finding, as_text
from whichteacher.doctor.hardware import Gpu, Machine
from whichteacher.doctor.models import Use
from whichteacher.doctor.services import Hub
from whichteacher.model_sizes import size_of
from whichteacher.rule import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
H100 = Gpu("H100", 80 * GIB)
LARGE = Machine([H100] * 8, 1000 * GIB, 64, slurm=False, cpu_build=False)
TOKENIZER = ROOT / "resources" / "teachers" / "tokenizer"
SECRET = "a-secret-key"


def study(change=None, config: Path = CONFIG) -> Study:
    """The study of ``config`` after ``change`` has edited its raw configuration in place."""
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    if change:
        change(raw)
    return check_config(raw, folders=False)


def with_teacher(**keys) -> Study:
    """A study of one teacher and nothing that is trained or evaluated; ``keys`` are the teacher's."""
    block = {"label": "T", "colour": "#000000", "dtype": "bfloat16", "model": "org/model-32B", "revision": COMMIT}

    def change(raw):
        del raw["miniature"], raw["training"], raw["evaluation"], raw["curation"]["perplexity"]
        raw["teachers"] = {"t": block | keys}

    return study(change)


def states(findings) -> list[str]:
    return [finding.state for finding in findings]


def only(findings) -> Finding:
    (finding,) = findings
    return finding


@contextmanager
def server(status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()):
    """A server that answers every request so; yields its address and the headers of what it was asked."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append((self.path, dict(self.headers)))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}/v1", seen
    finally:
        listening.shutdown()
        listening.server_close()


def program(folder: Path, name: str, text: str) -> None:
    """A program of this name that runs ``text`` in a shell."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A function that puts an nvidia-smi with this output, and nothing else, on the path."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(output: str, status: int = 0) -> None:
        (tmp_path / "told").write_text(output)
        program(
            tmp_path / "bin",
            "nvidia-smi",
            f'while read -r line; do echo "$line"; done < {tmp_path}/told; exit {status}',
        )

    return put


def test_findings_are_shown_faults_first_and_aligned():
    shown = as_text(
        [
            Finding("b", "ok", "well"),
            Finding("long name", "warning", "odd", "look"),
            Finding("c", "fault", "bad", "mend"),
        ]
    )
    assert shown.splitlines() == [
        "fault    c          bad: mend",
        "warning  long name  odd: look",
        "ok       b          well",
        "1 fault, 1 warning, 1 ok",
    ]


TWO_GPUS = "0, GPU-aa11, NVIDIA H100, 81559\n1, GPU-bb22, NVIDIA H100, 40000\n"


def test_gpus_are_read_from_nvidia_smi(nvidia_smi, monkeypatch):
    assert hardware.read_gpus() == []
    nvidia_smi(TWO_GPUS)
    assert hardware.read_gpus() == [Gpu("NVIDIA H100", 81559 * 2**20), Gpu("NVIDIA H100", 40000 * 2**20)]
    for visible, count in (("", 0), ("1", 1), ("GPU-bb", 1), ("1,0", 2), ("-1", 0), ("MIG-1,MIG-2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert len(hardware.read_gpus()) == count, visible
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    nvidia_smi("0, GPU-aa11, NVIDIA GB10, [N/A]\n")
    assert hardware.read_gpus() == [Gpu("NVIDIA GB10", math.inf)]
    nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", status=9)
    assert hardware.read_gpus() == []


def test_the_miniature_needs_no_gpu_but_engines_built_for_gpus_do():
    small = Machine([], 8 * GIB, 2, slurm=False, cpu_build=True)
    assert states(hardware.check_gpus(study(), small)) == ["ok"]
    finding = only(hardware.check_gpus(study(), small._replace(cpu_build=False)))
    assert finding.state == "fault" and "without --sdm conda" in finding.remedy


def test_too_few_gpus_are_a_fault_here_and_a_warning_where_slurm_is():
    wide = with_teacher(tensor_parallel=4, data_parallel=3)
    finding = only(hardware.check_gpus(wide, LARGE))
    assert finding.state == "fault" and "12 per job (teachers.t)" in finding.found
    finding = only(hardware.check_gpus(wide, LARGE._replace(gpus=[], slurm=True)))
    assert finding.state == "warning" and "14.9 GiB or more each (reckoned)" in finding.remedy
    assert states(hardware.check_gpus(with_teacher(tensor_parallel=4), LARGE)) == ["ok", "ok"]


def test_without_gpus_only_small_models_may_run():
    bare = Machine([], 16 * GIB, 4, slurm=False, cpu_build=True)
    assert only(hardware.check_gpus(with_teacher(), bare)).state == "fault"
    assert only(hardware.check_gpus(with_teacher(model="org/m-1.5B"), bare)).state == "warning"
    assert only(hardware.check_gpus(with_teacher(model="org/m"), bare)).state == "fault"
    # There are GPUs, and the engines of `make setup` cannot use them.
    finding = only(hardware.check_gpus(with_teacher(), bare._replace(gpus=[H100])))
    assert finding.state == "fault" and "--sdm conda" in finding.remedy


def test_an_encoder_asks_for_no_gpu_and_must_be_had():
    def change(raw):
        del raw["miniature"], raw["training"], raw["evaluation"], raw["curation"]["perplexity"]
        raw["teachers"] = {"t": {"label": "T", "colour": "#000000", "model": "m", "engine": "openai"}}
        raw["teachers"]["t"]["endpoint"] = endpoint("http://127.0.0.1:1/v1")
        raw["corpus"]["decontaminate"] = {"embedder": "org/encoder", "embedder_revision": COMMIT}

    asked = study(change)
    bare = Machine([], 16 * GIB, 4, slurm=False, cpu_build=False)
    assert states(hardware.check_gpus(asked, bare)) == ["ok"]
    assert models.hub_models(asked) == {("org/encoder", COMMIT)}


@pytest.mark.parametrize(
    ("keys", "state"),
    [
        ({}, "ok"),  # 60 GiB of 72
        ({"dtype": "float32"}, "fault"),
        ({"dtype": "float32", "tensor_parallel": 2}, "ok"),
        ({"dtype": "float32", "pipeline_parallel": 2}, "ok"),
        ({"dtype": "float32", "data_parallel": 2}, "fault"),
        ({"model": "org/m-36B"}, "warning"),  # 67 GiB of 72
        ({"model": "org/m-40B"}, "fault"),
        ({"model": "org/m-40B", "vllm_arguments": {"gpu_memory_utilization": 0.95}}, "warning"),
        ({"model": "org/m-40B", "quantization": "fp8"}, "ok"),
        ({"model": "org/m"}, "warning"),
    ],
)
def test_weights_are_reckoned_against_the_memory_of_a_device(keys, state):
    assert states(hardware.check_gpus(with_teacher(**keys), LARGE)) == ["ok", state]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen/Qwen2.5-32B", (32e9, 32e9)),
        ("Qwen/Qwen3-235B-A22B", (235e9, 22e9)),
        ("mistralai/Mixtral-8x7B-v0.1", (56e9, 56e9)),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", (1.5e9, 1.5e9)),
        ("meta-llama/Llama-3.1-8B-Instruct", (8e9, 8e9)),
        ("HuggingFaceTB/SmolLM2-135M", (135e6, 135e6)),
        ("deepseek-ai/DeepSeek-R1", (671e9, 37e9)),
        ("BAAI/bge-m3", None),
        ("a-7B-team/model", None),
    ],
)
def test_a_hub_id_may_tell_how_large_its_model_is(name, size):
    assert size_of(name) == size


def test_weights_of_a_folder_are_those_of_its_files(tmp_path):
    import numpy as np

    save_file({"w": np.zeros(1000, dtype=np.float16)}, tmp_path / "model.safetensors")
    size = (tmp_path / "model.safetensors").stat().st_size
    use = Use("k", str(tmp_path), None, "auto")
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float16"}))
    assert models.weight_bytes(use) == size
    assert models.weight_bytes(use._replace(dtype="float32")) == 2 * size
    assert models.weight_bytes(use._replace(quantization="fp8")) == size / 2
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float16", "quantization_config": {}}))
    assert models.weight_bytes(use._replace(dtype="float32")) == size


@pytest.mark.parametrize(
    ("recipe", "per_parameter"),
    [
        ({}, 16),
        ({"deepspeed": "zero2"}, 2 + 14 / 8),
        ({"deepspeed": "zero2", "offload": True}, 2 + 2 / 8),
        ({"deepspeed": "zero3"}, 16 / 8),
        ({"lora": {}}, 2),
    ],
)
def test_training_is_reckoned_per_device(recipe, per_parameter):
    def change(raw):
        del raw["miniature"], raw["training"]["architecture"]
        raw["training"]["base"] = {"model": "org/m-1B", "revision": COMMIT}
        raw["training"]["recipe"] = {"devices": 8, "batch_size": 8, **recipe}

    taken, parameters = models.training_bytes(study(change))
    assert (taken, parameters) == (per_parameter * 1e9, 1e9)


def test_memory_cores_and_processes():
    small = Machine([], 3 * GIB, 2, slurm=False, cpu_build=True)
    memory = [hardware.check_memory(study(), small._replace(memory=size * GIB), {}).state for size in (3, 5, 8)]
    assert memory == ["fault", "warning", "ok"]
    asked = {"generate_responses": 200e9, "clean_queries": 2e9}
    finding = hardware.check_memory(with_teacher(), small, asked)
    assert finding.state == "warning" and "generate_responses" in finding.found
    assert hardware.check_memory(with_teacher(), LARGE, asked).state == "ok"
    assert hardware.check_cores(small, {"train_student": 8}).state == "ok"
    assert hardware.check_cores(small._replace(slurm=True), {"train_student": 8}).state == "warning"


def test_shared_memory_counts_where_a_job_has_several_processes(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(total=64 * 2**20))
    assert hardware.check_shared_memory(with_teacher()) == []
    finding = only(hardware.check_shared_memory(with_teacher(tensor_parallel=2)))
    assert finding.state == "warning" and "--shm-size" in finding.remedy


def test_open_files_against_the_connections(monkeypatch):
    many = with_teacher(
        engine="openai", endpoint={"base_url": "http://127.0.0.1:1/v1", "concurrency": 4000}, dtype="auto"
    )
    monkeypatch.setattr(hardware.resource, "getrlimit", lambda _: (1024, 4096))
    assert hardware.check_open_files(study()).state == "ok"
    finding = hardware.check_open_files(many)
    assert (finding.state, finding.remedy) == ("warning", "ulimit -n 4256 before the start")


def test_memory_is_that_of_the_control_group(tmp_path, monkeypatch):
    whole = hardware.read_memory()
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.read_memory() >= whole
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    assert hardware.read_memory() == GIB


def test_a_small_disk_is_a_fault_with_all_that_lies_on_it(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    needed = disk.estimate(study(), [], None)
    places = {name: tmp_path / "not there yet" for name in needed}
    total = sum(size for size, _ in needed.values())
    for free, state in ((total - 1, "fault"), (total * 1.5, "warning"), (total * 3, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=int(free)))
        finding = only(disk.check_disk(places, needed))
        assert finding.state == state
        assert all(name in finding.found for name in needed)


def test_what_a_study_writes_is_estimated_from_its_queries_students_and_models():
    def change(raw):
        del raw["miniature"], raw["training"]["architecture"]
        for source in raw["corpus"]["sources"].values():
            source["limit"] = 1000
            source["hub"], source["revision"] = "org/data", COMMIT
            del source["path"]
        raw["training"]["base"] = {"model": "org/m-1B", "revision": COMMIT}

    found = disk.estimate(study(change), ["org/m-1B", "org/m"], ROOT / "envs")
    responses = 3 * 6000 * 512 / 4 * 4 * 1.5
    assert found["results"][0] == GIB + 4 * responses
    assert found["store"][0] == GIB + responses + 1e9 * (3 * 4 + 3 * 16)
    assert found["hub cache"][0] == 2e9 and "without 1 whose name tells no size" in found["hub cache"][1]
    assert found["conda environments"][0] > 12 * GIB

    def unlimited(raw):
        change(raw)
        raw["corpus"]["sources"]["math"]["limit"] = None

    assert "not counted" in disk.estimate(study(unlimited), [], None)["results"][1]


def test_the_store_must_be_writable(tmp_path, monkeypatch):
    store = tmp_path / "store"
    finding = disk.check_store(str(store))
    assert finding.state == "ok" and not store.exists() and list(tmp_path.iterdir()) == []
    (store / "responses" / "ab").mkdir(parents=True)
    assert "; 1 folders of rows" in disk.check_store(str(store)).found

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disk.tempfile, "TemporaryDirectory", refuse)
    finding = disk.check_store(str(store))
    assert finding.state == "fault" and "Permission denied" in finding.found


def test_the_kind_of_file_system_is_that_of_the_nearest_mount(tmp_path):
    mounts = f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n/dev/b {tmp_path}/in\\040it xfs rw 0 0\n"
    (tmp_path / "in it").mkdir()
    kinds = [disk.file_system(place, mounts) for place in ("/", tmp_path, tmp_path / "no" / "such", tmp_path / "in it")]
    assert kinds == ["ext4", "nfs4", "nfs4", "xfs"]


def test_programs_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {
        finding.name: finding.state for finding in tools.check_programs(study(config=ROOT / "config/paper.yaml"), True)
    }
    assert (found["conda"], found["slurm"], found["C compiler"]) == ("fault", "fault", "warning")
    assert states(tools.check_programs(study(), False)) == ["warning"]  # make alone
    for name in ("sbatch", "srun", "cc"):
        program(tmp_path, name, "exit 0")
    found = {
        finding.name: finding.state for finding in tools.check_programs(study(config=ROOT / "config/paper.yaml"), False)
    }
    assert (found["slurm"], found["C compiler"]) == ("ok", "ok")


@pytest.mark.parametrize(
    ("told", "state"), [("conda 24.5.0", "fault"), ("conda 24.7.1", "ok"), ("conda 25.1.1", "ok"), ("?", "warning")]
)
def test_an_old_conda_is_a_fault(tmp_path, monkeypatch, told, state):
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "conda", f"echo {told}")
    assert tools.check_conda().state == state


def test_environments_are_those_of_their_locks(tmp_path, monkeypatch):
    project = tmp_path / "project"
    shutil.copytree(ROOT / "envs", project / "envs")
    shutil.copytree(ROOT / "tools", project / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    python = project / ".venv-evaluation" / "bin" / "python"
    finding = only(tools.check_environments(study(), str(python), project))
    assert (finding.state, finding.remedy) == ("fault", "make setup")
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert only(tools.check_environments(study(), str(python), project)).state == "warning"
    assert only(tools.check_environments(study(), sys.executable, project)).state == "ok"
    # Nobody is evaluated.
    assert tools.check_environments(with_teacher(), str(python), project) == []


def test_the_sandbox_is_tried_where_programs_run(monkeypatch):
    def refuse(*_):
        raise InputError("this machine gives no safe place (bwrap is not installed): install bubblewrap")

    monkeypatch.setattr(tools, "open_sandbox", refuse)
    finding = only(tools.check_sandbox(study()))
    assert (finding.state, finding.remedy) == ("fault", "install bubblewrap")
    risky = study(lambda raw: raw.update(verification={"sandbox": {"accept_risk": True}}))
    assert only(tools.check_sandbox(risky)).state == "warning"
    monkeypatch.setattr(tools, "open_sandbox", lambda *_: type("Sandbox", (), {"backend": "landlock"}))
    assert only(tools.check_sandbox(study())).state == "warning"

    def without_code(raw):
        del raw["corpus"]["sources"]["code"], raw["evaluation"]["benchmarks"]["code_tasks"]

    assert tools.check_sandbox(study(without_code)) == []


def test_zeros_are_no_commit():
    finding = only(models.check_revisions(with_teacher(revision=UNPINNED)))
    assert finding.state == "fault" and "teachers.t.revision" in finding.found
    assert only(models.check_revisions(with_teacher())).state == "ok"
    assert models.check_revisions(study()) == []


def test_local_models_hold_what_can_be_loaded(tmp_path):
    local = with_teacher(model=str(tmp_path), revision=None)

    def fault():
        return only(models.check_local_models(local))

    assert "no config.json" in fault().found
    (tmp_path / "config.json").write_text("{}")
    assert "no weights" in fault().found
    (tmp_path / "model.safetensors").touch()
    assert "is empty" in fault().found
    (tmp_path / "model.safetensors").write_bytes(b"0" * 100)
    assert fault().state == "ok"


def test_files_of_queries_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lacking = models.check_files(with_teacher())
    assert states(lacking) == ["fault"] * 6 and "math.jsonl" in lacking[0].found
    assert models.check_files(study()) == []  # the miniature makes its own


def endpoint(base_url: str, key: str | None = None) -> dict:
    return {"base_url": base_url, "api_key_env": key, "served_model": "m"}


@pytest.mark.parametrize(
    ("status", "body", "state", "words"),
    [
        (200, b'{"data": [{"id": "m"}]}', "ok", "lists m"),
        (200, b'{"data": [{"id": "other"}]}', "warning", "it lists other"),
        (200, b"<html>", "ok", "answers"),
        (401, b"", "fault", "status 401"),
        (403, b"", "fault", "status 403"),
        (404, b"", "warning", "no /models"),
        (503, b"", "warning", "status 503"),
    ],
)
def test_an_endpoint_is_asked_once(monkeypatch, status, body, state, words):
    monkeypatch.setenv("DOCTOR_KEY", SECRET)
    with server(status, body) as (address, seen):
        finding = services.check_endpoint("e", endpoint(address, "DOCTOR_KEY"), "m")
    assert finding.state == state and words in finding.found
    ((path, headers),) = seen
    assert (path, headers["Authorization"]) == ("/v1/models", f"Bearer {SECRET}")
    assert SECRET not in as_text([finding])


def test_a_key_goes_to_no_other_host(monkeypatch):
    monkeypatch.setenv("DOCTOR_KEY", SECRET)
    with server(200) as (other, seen), server(302, headers=(("Location", f"{other}/models"),)) as (address, _):
        finding = services.check_endpoint("e", endpoint(address, "DOCTOR_KEY"), "m")
    assert finding.state == "warning" and seen == []


def test_a_key_that_is_not_set_and_a_server_that_is_not_there(monkeypatch):
    monkeypatch.delenv("DOCTOR_KEY", raising=False)
    finding = services.check_endpoint("e", endpoint("http://127.0.0.1:1/v1", "DOCTOR_KEY"), "m")
    assert (finding.state, finding.remedy) == ("fault", "export DOCTOR_KEY=<key>")
    asked = with_teacher(engine="openai", endpoint=endpoint("http://127.0.0.1:1/v1"), dtype="auto")
    finding = only(services.check_endpoints(asked))
    assert finding.state == "fault" and "cannot be reached" in finding.found


def test_what_is_not_in_the_cache_needs_the_hub(tmp_path):
    one = with_teacher()
    cut_off = Hub(tmp_path, "the hub cannot be reached", "", False)
    finding = services.check_hub(one, cut_off)[0]
    assert finding.state == "fault" and "org/model-32B" in finding.found
    assert states(services.check_hub(one, cut_off._replace(barrier=""))) == ["ok", "warning"]
    assert states(services.check_hub(one, cut_off._replace(barrier="", token=True))) == ["ok"]
    (tmp_path / "models--org--model-32B" / "snapshots" / COMMIT).mkdir(parents=True)
    assert services.missing_weights(one, cut_off) == []
    assert states(services.check_hub(one, cut_off)) == ["ok"]
    assert not services.needs_hub(study())


def test_offline_switches_stand_for_a_hub_out_of_reach(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(services, "ask", lambda *_, **__: pytest.fail("nobody is asked"))
    assert services.read_hub().barrier == "HF_HUB_OFFLINE is set"


def test_a_hub_that_answers_has_no_barrier(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(services, "ask", lambda *_, **__: (200, b""))
    assert services.read_hub().barrier == ""


@pytest.fixture
def model_with(tmp_path):
    """A function that makes a folder with the shipped tokenizer and this chat template (None: without one)."""

    def make(template: str | None) -> Use:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        shutil.copytree(TOKENIZER, folder)
        (folder / "chat_template.jinja").unlink()
        if template is not None:
            (folder / "chat_template.jinja").write_text(template)
        return Use("teachers.t", str(folder), None, "auto")

    return make


@pytest.mark.parametrize(
    ("template", "answer_format", "state", "words"),
    [
        ("{{ messages[-1].content }}", "tags", "ok", "it loads"),
        ("{{ messages[-1].content }}<think>\n", "thinking_only", "ok", "opens <think>"),
        ("{{ messages[-1].content }}<think>\n", "tags", "warning", "answer_format is tags"),
        ("{{ messages[-1].content }}<think>\n\n</think>\n\n", "thinking_only", "fault", "no response has thinking"),
        ("{{ messages[-1].content }}<think>\n\n</think>\n\n", None, "ok", "it loads"),
        ("{{ raise_exception('no system message') }}", "tags", "fault", "no system message"),
        (None, "tags", "fault", "no chat template"),
    ],
)
def test_a_template_is_rendered_and_goes_with_the_answers(model_with, template, answer_format, state, words):
    finding = rendering.check_template_of("t", model_with(template), "Be brief.", answer_format)
    assert finding.state == state and words in finding.found


def test_a_folder_without_tokenizer(tmp_path):
    use = Use("teachers.t", str(tmp_path), None, "auto")
    assert rendering.check_template_of("t", use, "", "tags").state == "fault"
    reference = study().curation.ngrams.tokenizer.model_copy(update={"model": str(tmp_path)})
    assert rendering.check_tokenizer_of("t", reference).state == "fault"


def test_templates_out_of_reach_are_one_warning(tmp_path):
    hub = Hub(tmp_path, "the hub cannot be reached", "", False)
    findings = rendering.check_templates(with_teacher(), hub)
    assert states(findings) == ["warning", "ok"] and "teachers.t" in findings[0].found
    assert "all zeros" in rendering.check_templates(with_teacher(revision=UNPINNED), hub)[0].found


def test_training_and_evaluation_write_the_same_prompts(tmp_path, model_with):
    training = {"architecture": {"tokenizer": str(TOKENIZER)}, "base": None}
    assert rendering.compare_templates("t", training, sys.executable).state == "ok"
    # Packages that write something else: a transformers of its own stands before the real one.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "transformers.py").write_text(
        "class AutoTokenizer:\n"
        "    eos_token = ''\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, _): return cls()\n"
        "    def apply_chat_template(self, turns, **_): return turns[-1]['content']\n"
    )
    program(tmp_path / "bin", "python", f'PYTHONPATH={tmp_path}/other:{ROOT}/workflow exec {sys.executable} "$@"')
    finding = rendering.compare_templates("t", training, str(tmp_path / "bin" / "python"))
    assert finding.state == "fault" and "other prompts" in finding.found
    # Nobody claims what was not compared.
    assert "will compare" in rendering.compare_templates("t", training, None).found
    broken = {"architecture": {"tokenizer": model_with(None).model}, "base": None}
    assert rendering.compare_templates("t", broken, sys.executable).state == "fault"


def test_rules_that_the_study_leaves_out_ask_for_nothing():
    rules = [
        {"script": "train_student", "mem_mb": 512000, "threads": 64},
        {"script": "generate_responses", "mem_mb": 3000, "threads": 1},
        {"script": "import_traces", "mem_mb": 3000, "threads": 8},
        {"script": "shard_corpus", "mem_mb": None, "threads": 1},
    ]
    assert examination.asked_of(with_teacher(), rules, "mem_mb") == {"generate_responses": 3000}
    assert set(examination.asked_of(study(), rules, "threads")) == {
        "train_student",
        "generate_responses",
        "shard_corpus",
    }


def test_a_fault_is_an_error_and_a_warning_is_none(monkeypatch, capsys):
    raw = yaml.safe_load(CONFIG.read_text(encoding="utf-8")) | {"running": {}}
    for name in ("ENVS", "EVALUATION_PYTHON"):
        monkeypatch.setenv(f"WHICHTEACHER_{name}", "x")
    monkeypatch.setattr(doctor, "examine", lambda *_: [Finding("a", "warning", "odd", "look")])
    doctor.main(raw, [], None)
    monkeypatch.setattr(doctor, "examine", lambda *_: [Finding("a", "fault", "bad", "mend")])
    with pytest.raises(InputError, match="1 fault, 0 warnings, 0 ok"):
        doctor.main(raw, [], None)
    told = capsys.readouterr()
    assert "bad: mend" in told.out + told.err


@pytest.mark.parametrize(("name", "status"), [("test", 0), ("paper", 1)])
def test_the_rule_on_shipped_configurations(tmp_path, name, status):
    config = ROOT / "config" / f"{name}.yaml"
    done = subprocess.run(command(tmp_path, "doctor", config=config), capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    assert done.returncode == status, told
    log = (tmp_path / "results" / name / "logs" / "doctor.log").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(?:fault|warning|ok) +(\w[\w .-]*?)  +(.*)$", log, re.M))
    for finding in found.values():
        assert finding in told
    assert bool(re.search("^fault", log, re.M)) == bool(status)
    if name == "paper":
        assert re.search(r"^fault +revisions +\d+ commits are all zeros", log, re.M)
        assert re.search(r"^(fault|warning) +gpu ", log, re.M)
    else:
        assert re.search(r"^ok +template of students ", log, re.M)
    # It made nothing but its log.
    made = {
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and ".snakemake" not in path.parts
    }
    assert made == {f"results/{name}/logs/doctor.log"}
