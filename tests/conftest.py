"""What several test files share."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import study_tables
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from whichteacher.chat import CHAT_TEMPLATE, END_OF_TURN, PADDING, START_OF_TURN
from whichteacher.outcomes import query_outcomes

# Continuous integration tries the same examples every time: what it reports is about the change. Elsewhere new examples
# are tried in every run, and some are slower on a busy machine.
settings.register_profile("integration", derandomize=True, deadline=None)
settings.register_profile("everywhere", deadline=None)
settings.load_profile("integration" if os.environ.get("CI") else "everywhere")

#: The files whose tests run the small study.
STUDIES = ("test_interruption.py", "test_study.py")

#: Runs a program (from the fourth argument on) while the folder $1 is a file system with $2 KiB of its 2 MiB taken, and
#: lists in the file $3 what lies in it at the end.
_ON_SMALL_DISK = """
mount -t tmpfs -o size=2m tmpfs "$1" && head -c "$2"k /dev/zero > "$1/filler" || exit 99
folder=$1 list=$3; shift 3
"$@"; status=$?
find "$folder" -type f -printf '%P\\n' > "$list"
exit $status
"""


@pytest.fixture
def on_small_disk(tmp_path) -> Callable[..., tuple[subprocess.CompletedProcess, set[str]]]:
    """A function that runs a command with ``tmp_path / "disk"`` on a disk with ``free`` KiB left; returns what the
    command did and which files lay on that disk afterwards. The disk is gone with the command."""
    folder, listed = tmp_path / "disk", tmp_path / "listed"
    folder.mkdir()
    unshare = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]

    def run(free: int, *command: object) -> tuple[subprocess.CompletedProcess, set[str]]:
        arguments = [str(folder), str(2048 - free), str(listed), *map(str, command)]
        done = subprocess.run(
            [*unshare, "sh", "-c", _ON_SMALL_DISK, "sh", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "workflow")},
        )
        return done, set(listed.read_text().splitlines()) - {"filler"}

    try:
        probe, _ = run(1024, "true")
    except OSError:
        pytest.skip("mounting is not permitted here")
    assert probe.returncode == 0
    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """The folder of a Llama with random weights, small but servable by vLLM on CPU (32-wide heads)."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny_model")
    special = [PADDING, START_OF_TURN, END_OF_TURN]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(special + alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PADDING, eos_token=END_OF_TURN, additional_special_tokens=[START_OF_TURN]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Keep each file's tests in one process, for they share what they set up; those that run the small study count as one file.

    (Groups, as xdist has them, reach it with no test of pytest 9.)
    """
    return ByFile(config, log)


class ByFile(LoadScopeScheduling):
    """Files in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "study" if Path(file).name in STUDIES else file


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In processes side by side what takes longest comes first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.name not in STUDIES)


@pytest.fixture(scope="session")
def small_study() -> dict[str, Path]:
    """Working directories of small studies that were run to their end, by name, for tests that need one."""
    return {}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The tables of a made-up study."""
    return study_tables.write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def outcomes(study):
    """What became of its queries, by teacher."""
    queries = [study / f"corpus/shards/{shard}.parquet" for shard in (0, 1)]
    return {
        teacher: query_outcomes(
            [study / f"verification/{teacher}/{shard}/attempts.parquet" for shard in (0, 1)], queries
        )
        for teacher in study_tables.TEACHERS
    }
