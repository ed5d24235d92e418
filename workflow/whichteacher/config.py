"""The configuration of a study: one pydantic model per block, validated before any job starts.

The models are the single source: ``make config`` writes ``workflow/schemas/config.schema.json`` and the commented
``config/config.yaml`` from them, and a test fails when either drifts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from whichteacher.patterns import ENDING, IMAGE, TABLE, UNWANTED, URL
from whichteacher.places import locate

Category = Literal["math", "code", "science", "instruction_following", "multi_turn", "general"]
CATEGORIES: tuple[Category, ...] = ("math", "code", "science", "instruction_following", "multi_turn", "general")
#: Categories without a reference to compare with: a reward model scores them.
REWARDED: tuple[Category, ...] = ("multi_turn", "general")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Scalar = str | int | float | bool
TraceLayout = Literal["auto", "am", "am_r1", "open_thoughts", "messages"]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]

#: Stands for a commit the writer of a configuration did not know. It plans a run and warns; no hub has it.
UNPINNED = "0" * 40


class ConfigError(ValueError):
    """The configuration cannot be used; the message names key, value and remedy, one line per problem."""


class Block(BaseModel):
    """A mapping of the configuration. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Sampling(Block):
    """How responses are drawn."""

    temperature: float = Field(0.6, ge=0, description="Sampling temperature.")
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus sampling mass.")
    top_k: int = Field(-1, ge=-1, description="Keep the k likeliest tokens; -1 keeps all.")
    max_tokens: Positive = Field(
        49152, description="Longest response, in tokens; a longer one is cut and never passes."
    )
    stop: list[str] | None = Field(
        None, description="Texts that end a response, besides the model's own end of turn; vLLM keeps them in the text."
    )


class ModelRef(Block):
    """A model by hub id and revision, or by local folder."""

    model: str = Field(description="Hub id (`org/name`), or a folder (`./...` or an absolute path).")
    revision: str | None = Field(
        None,
        description="Commit (40 hex digits) of a hub model; none for a folder, whose weights are digested instead.",
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field("auto", description="Weights in memory.")

    @property
    def is_local(self) -> bool:
        """Whether ``model`` names a folder rather than a hub id."""
        return self.model.startswith(("./", "../", "/"))

    @property
    def is_loaded(self) -> bool:
        """Whether the study loads the weights."""
        return True

    @model_validator(mode="after")
    def _revision_fits(self) -> ModelRef:
        if self.is_local and self.revision is not None:
            raise ValueError("a local folder takes no revision: remove `revision`")
        pinned = re.fullmatch(r"[0-9a-f]{40}", self.revision or "")
        if not self.is_local and not pinned and (self.is_loaded or self.revision is not None):
            raise ValueError(
                f"revision {self.revision!r} of hub model {self.model!r} is no commit: pin one with 40 hex digits, "
                "or start a local folder with ./"
            )
        return self


class Columns(Block):
    """Which column of a source file holds what.

    A dotted name reaches into a nested object and, by number, into a list: ``conversations.0.info.ground_truth``.
    """

    id: str | None = Field(None, description="The source's own id of the row; none uses the line number.")
    prompt: str | None = Field(None, description="The query as one string; give this or `turns`.")
    turns: str | None = Field(None, description="The dialogue as a list of {role, content} or {from, value}.")
    answer: str | None = Field(None, description="The reference answer.")
    answer_type: str | None = Field(
        None, description="number, expression, set, interval, choice or text; none infers it from the answer."
    )
    tests: str | None = Field(
        None, description="Tests of a code query: JSON or Python test functions (see config/README.md)."
    )
    language: str | None = Field(None, description="Language of the tests, python or cpp; none is python.")
    checker: str | None = Field(
        None, description="Python function that tells right outputs from wrong ones where several are right."
    )
    constraints: str | None = Field(
        None, description="IFEval constraints: JSON text or an object, or the list of their names."
    )
    constraint_arguments: str | None = Field(
        None, description="The list of their arguments, where `constraints` is that of their names."
    )
    difficulty: str | None = Field(None, description="Difficulty as a whole number; benchmarks only.")

    @model_validator(mode="after")
    def _one_text(self) -> Columns:
        if (self.prompt is None) == (self.turns is None):
            raise ValueError("name exactly one of `prompt` and `turns`")
        return self


class Source(Block):
    """Where queries come from."""

    path: str | list[str] | None = Field(
        None,
        description="Local .jsonl, .jsonl.zst, .csv or .parquet file; give this or `hub`. With `layout` also a list.",
    )
    hub: str | None = Field(None, description="Hub data set id; needs `revision`.")
    revision: str | None = Field(None, description="Commit (40 hex digits) of the hub data set.")
    file: str | list[str] | None = Field(
        None,
        description="One file of the hub data set, read by itself; none loads the data set. With `layout` also a list.",
    )
    subset: str | None = Field(None, description="Configuration name of the hub data set.")
    split: str = Field("train", description="Split of the hub data set.")
    category: Category = Field(description="The one category of this source.")
    licence: str = Field(description="SPDX name, or the words of the source.")
    limit: Positive | None = Field(None, description="Take at most this many rows; none takes all.")
    where: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict, description="Take only rows with these values; a list allows any of it."
    )
    exclude: list[str] = Field(
        default_factory=list, description="Ids of rows to leave out: faulty problems, or ones that no test decides."
    )
    columns: Columns | None = Field(None, description="Column mapping; give this or `layout`.")
    layout: TraceLayout | None = Field(
        None,
        description="How published traces are written whose queries and references are the source, as in `traces_layout`.",
    )
    guess: bool = Field(False, description="True where the paper does not name this source for this category.")

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.path is None) == (self.hub is None):
            raise ValueError("name exactly one of `path` and `hub`")
        if self.hub is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"revision {self.revision!r} of {self.hub!r} is no commit: pin one with 40 hex digits")
        if (self.columns is None) == (self.layout is None):
            raise ValueError("name exactly one of `columns` and `layout`")
        if self.layout is None and (isinstance(self.path, list) or isinstance(self.file, list)):
            raise ValueError("several files are read with `layout`: make a source of each file that has `columns`")
        if self.layout is not None and self.hub is not None and self.file is None:
            raise ValueError("`layout` reads files: name them in `file`")
        return self

    @property
    def files(self) -> list[str]:
        """The local files."""
        return [] if self.path is None else [self.path] if isinstance(self.path, str) else self.path


class Repeated(Block):
    """A long example, without its length in the file."""

    text: str = Field(description="What is repeated.")
    times: Positive = Field(description="How often.")


Example = str | Repeated


class CleaningRule(Block):
    """When a query is unfit, with examples that are checked whenever the configuration is read."""

    drop: bool = Field(True, description="Whether the rule is applied.")
    drops: list[Example] = Field(default_factory=list, description="Examples that the rule must drop.")
    keeps: list[Example] = Field(default_factory=list, description="Examples that the rule must keep.")


class EmptyRule(CleaningRule):
    """Nothing to read in the last message."""

    drops: list[Example] = Field(["", " \u200b\n"], description="Examples that the rule must drop.")
    keeps: list[Example] = Field(["?"], description="Examples that the rule must keep.")


class IncompleteRule(CleaningRule):
    """The last message is a fragment."""

    min_chars: Positive = Field(4, description="Shortest last message, without white space around it.")
    ending: str | None = Field(
        ENDING, description="Regular expression, looked for in the last 64 characters, of an ending no question has."
    )
    drops: list[Example] = Field(
        ["Why", "Find all integers n such that", "Let x = 3, y = 4,"], description="Examples that the rule must drop."
    )
    keeps: list[Example] = Field(
        ["Why?", "Is it hot or cold outside, or both?", "1+1=", "Complete this function:\ndef f(x):"],
        description="Examples that the rule must keep.",
    )


class TooLongRule(CleaningRule):
    """More text than a query should have."""

    max_chars: Positive = Field(20000, description="Longest query, all turns together.")
    drops: list[Example] = Field(
        [Repeated(text="ten chars ", times=2001)], description="Examples that the rule must drop."
    )
    keeps: list[Example] = Field(
        [Repeated(text="ten chars ", times=2000)], description="Examples that the rule must keep."
    )


class BrokenEncodingRule(CleaningRule):
    """A character was lost (U+FFFD), or UTF-8 was read as another encoding (as ftfy's heuristic finds)."""

    drops: list[Example] = Field(
        ["What does \ufffd 5 mean?", "Itâ€™s 5 oâ€™clock; when is it 6?", "Wo liegt KÃ¶ln?"],
        description="Examples that the rule must drop.",
    )
    keeps: list[Example] = Field(
        ["It’s 5 o’clock; when is it 6?", "Wo liegt Köln?", "水的沸点是多少?", "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−f(a)|<ε"],
        description="Examples that the rule must keep.",
    )


class UnicodeRatioRule(CleaningRule):
    """Too many characters that no question is made of."""

    characters: str = Field(UNWANTED, description="The characters, as a regular expression for one of them.")
    max_share: Probability = Field(0.15, description="Largest share of them.")
    drops: list[Example] = Field(
        ["\ue000\uf8ff\ue001 2 \uf8fe?", "■□■□ ◆◇ ■□■ what?", "H̸̡̪̯e̴͉͝l̶̰̅p̷͍͌ me!"],
        description="Examples that the rule must drop.",
    )
    keeps: list[Example] = Field(
        [
            "求所有满足 x² + y² = 25 的整数对 (x, y)。",
            "∀ε>0 ∃δ>0: |x−a|<δ ⇒ |f(x)−f(a)|<ε",
            "حل المعادلة س + ٣ = ٥",
            "यह समीकरण हल करें: x + 3 = 5",
            "In △ABC, ∠A = 90°. Find BC.",
        ],
        description="Examples that the rule must keep.",
    )


class UrlRule(CleaningRule):
    """A web address."""

    pattern: str = Field(URL, description="Regular expression, looked for in every turn.")
    drops: list[Example] = Field(
        ["See https://example.org/a for it.", "Look at www.example.org now."],
        description="Examples that the rule must drop.",
    )
    keeps: list[Example] = Field(
        ["What does http stand for?", "The ratio is 3:4; see page 5.html."],
        description="Examples that the rule must keep.",
    )


class TableRule(CleaningRule):
    """A table in Markdown, HTML, LaTeX or plain signs."""

    pattern: str = Field(TABLE, description="Regular expression, looked for in every turn.")
    drops: list[Example] = Field(
        [
            "Sum it:\n| a | b |\n|---|:-:|\n| 1 | 2 |",
            "<table><tr><td>1</td></tr></table>",
            "+---+---+\n| 1 | 2 |\n+---+---+",
        ],
        description="Examples that the rule must drop.",
    )
    keeps: list[Example] = Field(
        ["Solve |x| + |y| = 3.\n---\nGive all answers.", "What does the <table> tag do?", "P(A | B) is what?"],
        description="Examples that the rule must keep.",
    )


class ImageRule(CleaningRule):
    """An image, or words that point at one."""

    pattern: str = Field(IMAGE, description="Regular expression, looked for in every turn.")
    drops: list[Example] = Field(
        ["![](triangle.png) Find x.", "As shown in the figure, AB = 3. Find BC.", "如图，求三角形的面积。"],
        description="Examples that the rule must drop.",
    )
    keeps: list[Example] = Field(
        ["Find the image of 3 under f.", "Is the graph of y = 1/x connected?", "Write code that draws a figure."],
        description="Examples that the rule must keep.",
    )


class Clean(Block):
    """Which queries are unfit: the name of a rule is its reason in the ledger, and the first that holds counts."""

    empty: EmptyRule = Field(default_factory=EmptyRule, description="No visible character in the last message.")
    incomplete: IncompleteRule = Field(
        default_factory=IncompleteRule,
        description="A last message that is too short, or has an ending no whole question has.",
    )
    too_long: TooLongRule = Field(default_factory=TooLongRule, description="Too many characters.")
    broken_encoding: BrokenEncodingRule = Field(
        default_factory=BrokenEncodingRule,
        description="A lost character (U+FFFD), or UTF-8 that was read as another encoding.",
    )
    unicode_ratio: UnicodeRatioRule = Field(
        default_factory=UnicodeRatioRule,
        description="Too large a share of characters that no question is made of. Letters of any script, digits, punctuation "
        "and mathematical signs are none of them.",
    )
    url: UrlRule = Field(default_factory=UrlRule, description="A web address.")
    table: TableRule = Field(default_factory=TableRule, description="A table in Markdown, HTML, LaTeX or plain signs.")
    image: ImageRule = Field(default_factory=ImageRule, description="An image, or words that point at one.")


class Deduplicate(Block):
    """Which queries say the same. Equal ones always leave but for one; this is about those that are nearly equal."""

    near: bool = Field(
        False, description="Drop near duplicates too. The paper removes equal queries only, and so does the default."
    )
    similarity: float = Field(
        0.7,
        ge=0.1,
        le=1,
        description="Two queries are near duplicates from this Jaccard similarity of their word n-grams on: common ones over "
        "all. 0.7 bears one edited word in 33 and two in 61.",
    )
    ngram: Positive = Field(5, description="Words per n-gram.")
    same_numbers: bool = Field(
        True, description="Only queries with the same numbers and operators in the same order are near duplicates."
    )
    drop: bool = Field(True, description="Whether near duplicates leave; false only lists them.")


class Decontaminate(Block):
    """Which queries are too close to a benchmark problem."""

    ngram: Positive = Field(
        8,
        description="Length of the word n-grams looked for. A shorter problem is looked for whole, from one sentence edge to another.",
    )
    containment: Probability = Field(
        0.6,
        description="Flag if this share of the benchmark problem's n-grams stands in the query, where one that stands in k "
        "problems counts 1/k; drop if its numbers do too, in order, and four fifths of its telling words.",
    )
    embedder: str | None = Field(
        None,
        description="Encoder for the semantic check: a sentence-transformers hub id or folder, `hashed_words` (words and "
        "numbers hashed to 4096 dimensions: no model, no hub), or none.",
    )
    embedder_revision: str | None = Field(None, description="Commit (40 hex digits) of a hub encoder.")
    similarity: Probability = Field(0.9, description="Drop above this cosine similarity to a benchmark problem.")
    drop: bool = Field(True, description="Whether contaminated queries leave; false only lists them.")

    @model_validator(mode="after")
    def _pinned(self) -> Decontaminate:
        local = self.embedder is None or self.embedder == "hashed_words" or self.embedder.startswith(("./", "../", "/"))
        if not local and not re.fullmatch(r"[0-9a-f]{40}", self.embedder_revision or ""):
            raise ValueError(
                f"embedder_revision {self.embedder_revision!r} of hub model {self.embedder!r} is no commit: pin one with 40 "
                "hex digits, or start a local folder with ./"
            )
        return self


class Corpus(Block):
    """Queries and what happens to them before anything is generated."""

    sources: dict[Name, Source] = Field(default_factory=dict, description="Query sources by name; teachers need some.")
    clean: Clean = Field(default_factory=Clean, description="Cleaning rules; every dropped row has a reason.")
    deduplicate: Deduplicate = Field(
        default_factory=Deduplicate, description="Removal of queries equal or nearly equal to another."
    )
    decontaminate: Decontaminate = Field(
        default_factory=Decontaminate, description="Removal of queries equal or close to a benchmark problem."
    )
    shards: Positive = Field(1, description="Number of shards: equal ranges of `query_id`.")


class Miniature(Block):
    """The corpus and benchmarks the project makes itself. Absent in studies that bring their own."""

    seed: int = Field(1, ge=0, description="Seed of the corpus; benchmarks have their own, so they never follow it.")
    queries: dict[Category, Positive] = Field(description="Queries to make per category, before planted faults.")
    planted: Annotated[int, Field(ge=0)] = Field(
        12, description="Planted rows per kind of fault (duplicates, contamination, URLs, tables, garbled, empty, ...)."
    )
    problems: dict[Name, Positive] = Field(description="Problems to make per benchmark.")


class Prompting(Block):
    """How a query is put to a model."""

    system_prompt: str = Field("", description="System message; empty sends none.")
    suffixes: dict[Category, str] = Field(
        default_factory=dict, description="Text added to the last user message, per category."
    )


class Endpoint(Block):
    """An OpenAI-compatible server."""

    base_url: str = Field(pattern=r"^https?://", description="Where it listens, with its `/v1`.")
    api: Literal["completions", "chat"] = Field(
        "chat",
        description="`chat` sends messages and leaves the template to the server; `completions` sends prompts rendered here, "
        "with the tokenizer of `model`.",
    )
    served_model: str | None = Field(None, description="The model's name at the server; none takes `model`.")
    api_key_env: str | None = Field(
        None,
        description="Environment variable that holds the key; none is for servers that ask for none. Keys never stand in "
        "this file.",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="Further fields of every request, for what a server knows beyond OpenAI's. A vLLM server answers as the "
        "engine `vllm` does with {skip_special_tokens: false, include_stop_str_in_output: true}, and with `completions` "
        "also {add_special_tokens: false}.",
    )
    concurrency: Positive = Field(32, description="Requests of one job under way at the same time.")
    requests_per_minute: Positive | None = Field(
        None, description="No more requests of one job than that start in a minute."
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        8,
        description="Further tries after a fault that may pass (429, 5xx, time-outs, broken bodies), ever longer apart.",
    )
    timeout_seconds: float = Field(3600.0, gt=0, description="Longest wait for one response.")

    @model_validator(mode="after")
    def _own_fields_stay(self) -> Endpoint:
        taken = sorted({"model", "messages", "prompt", "n", "seed", "stream"} & set(self.extra_body))
        if taken:
            raise ValueError(f"extra_body sets {taken[0]!r}, which every request has of its own: remove it")
        return self


#: What says how a teacher is served, and not what it says: a change of it re-runs the report alone.
RUNNING = {
    "tensor_parallel": True,
    "pipeline_parallel": True,
    "data_parallel": True,
    "vllm_arguments": True,
    "endpoint": {"base_url", "api_key_env", "concurrency", "requests_per_minute", "retries", "timeout_seconds"},
}
#: The same of the students' training.
TRAINING_RUNNING = {"checkpoint_steps", "nodes"}
#: What figures and tables alone use of a teacher.
PRESENTED = {"label", "colour", "price_per_million_tokens", "price_per_device_hour"}


class Loaded(ModelRef):
    """A model that vLLM can load, and over which devices."""

    quantization: str | None = Field(
        None,
        description="vLLM's name of a quantisation to load the weights in (`fp8`); none takes the weights as saved.",
    )
    tensor_parallel: Positive = Field(1, description="GPUs over which each layer is split.")
    pipeline_parallel: Positive = Field(1, description="Groups of GPUs over which the layers are shared out.")
    data_parallel: Positive = Field(
        1, description="Engines side by side in one job, each on tensor_parallel x pipeline_parallel GPUs of its own."
    )
    vllm_arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of vllm.LLM, by its own names, of those that change speed and memory and not what is "
        "said: {gpu_memory_utilization: 0.95}.",
    )

    @property
    def devices(self) -> int:
        """GPUs that a job of this model takes."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


class Serving(Loaded):
    """A model and how it is served: by vLLM in the job itself, or by an endpoint."""

    endpoint: Endpoint | None = Field(None, description="Engine `openai`: the server.")
    max_model_len: Positive = Field(65536, description="Longest prompt and response together, in tokens.")
    # Declared by every kind of model with the engines it can have.
    engine: str

    @property
    def is_loaded(self) -> bool:
        """Whether the study loads the weights, or the tokenizer."""
        return self.engine in ("vllm", "reward") or (self.endpoint is not None and self.endpoint.api == "completions")

    @property
    def devices(self) -> int:
        """GPUs that a job of this model takes."""
        if self.engine == "reward":
            return 1
        return super().devices if self.engine == "vllm" else 0

    @model_validator(mode="after")
    def _served(self) -> Serving:
        if (self.engine == "openai") != (self.endpoint is not None):
            raise ValueError("engine `openai` and `endpoint` come together: give both or neither")
        parallel = self.tensor_parallel * self.pipeline_parallel * self.data_parallel
        if self.engine != "vllm" and (self.quantization or self.vllm_arguments or parallel > 1):
            raise ValueError(f"engine `{self.engine}` is not vLLM: remove the settings of vLLM")
        return self


class Teacher(Serving, Prompting):
    """A model that answers queries."""

    label: str = Field(description="Name in figures and tables.")
    colour: Colour = Field(description="Colour in every figure.")
    engine: Literal["vllm", "openai", "dataset"] = Field(
        "vllm",
        description="`vllm` generates in process; `openai` asks an OpenAI-compatible endpoint; `dataset` reads published "
        "traces as attempts.",
    )
    traces: str | None = Field(
        None,
        description="Engine `dataset`: hub data set id, or folder (`./...`), of published traces in JSON lines or Parquet.",
    )
    traces_revision: str | None = Field(None, description="Commit (40 hex digits) of the hub data set in `traces`.")
    traces_files: list[str] | None = Field(None, description="The files to read of `traces`; none reads all.")
    traces_layout: TraceLayout | None = Field(
        None,
        description="How `traces` are written. `auto` tells it from the first rows of each file. `am`: AM-Thinking-v1-Distilled and AM-Qwen3-Distilled (conversations, info); `am_r1`: "
        "AM-DeepSeek-R1-Distilled-1.4M (messages, info); `open_thoughts`: OpenThoughts (conversations, with thought and "
        "solution markers); `messages`: Mixture-of-Thoughts and other plain chat messages.",
    )
    answer_format: Literal["tags", "thinking_only"] = Field(
        "tags",
        description="`tags`: the model writes <think> and <answer> itself; `thinking_only`: it closes </think> and the "
        "rest is the answer (DeepSeek-R1, Qwen3).",
    )
    sampling: Sampling = Field(default_factory=Sampling, description="How responses are drawn.")
    attempts: list[Positive] = Field(
        [1, 1, 2, 4], min_length=1, description="Attempts drawn per still open query in each round."
    )
    price_per_million_tokens: float | None = Field(
        None,
        ge=0,
        description="Price of a million output tokens, for cost tables; none reports tokens and seconds only.",
    )
    price_per_device_hour: float | None = Field(
        None, ge=0, description="Price of a GPU for an hour, for cost tables; give this or the price of tokens."
    )

    @property
    def rounds(self) -> int:
        """Rounds of generation; published traces are all there in the first."""
        return 1 if self.engine == "dataset" else len(self.attempts)

    @model_validator(mode="after")
    def _engine_fits(self) -> Teacher:
        if self.price_per_million_tokens is not None and self.price_per_device_hour is not None:
            raise ValueError("a teacher has one price: remove price_per_million_tokens or price_per_device_hour")
        if self.engine != "dataset":
            if self.traces or self.traces_revision or self.traces_files or self.traces_layout:
                raise ValueError(f"engine `{self.engine}` reads no traces: remove `traces`, or set engine: dataset")
            return self
        if self.traces is None or self.traces_layout is None:
            raise ValueError(
                "engine `dataset` needs `traces`, a hub data set or a folder of published files, and their `traces_layout`"
            )
        if "attempts" in self.model_fields_set:
            raise ValueError("engine `dataset` holds the attempts that were published: remove `attempts`")
        local = self.traces.startswith((".", "/"))
        if local and self.traces_revision is not None:
            raise ValueError("a local folder of traces takes no revision: remove `traces_revision`")
        if not local and not re.fullmatch(r"[0-9a-f]{40}", self.traces_revision or ""):
            raise ValueError(
                f"traces_revision {self.traces_revision!r} of hub data set {self.traces!r} is no commit: pin one with "
                "40 hex digits, or start a local folder with ./"
            )
        return self


class Plan(Block):
    """The estimate before anything is paid for: `snakemake plan`."""

    queries: Positive = Field(
        50, description="Queries of the pilot: each teacher answers them first, by its whole schedule of attempts."
    )


class Sandbox(Block):
    """Limits on model-written code."""

    cpu_seconds: Positive = Field(6, description="CPU time of one program on one test.")
    memory_mb: Positive = Field(512, description="Address space of one program.")
    accept_risk: bool = Field(
        False,
        description="Run model-written code even where the isolation self-test fails. Only on a throw-away machine.",
    )


class Judge(Serving):
    """A model that judges what rules cannot decide."""

    engine: Literal["vllm", "openai", "reward"] = Field(
        "vllm",
        description="`vllm` and `openai` ask a language model, as for a teacher; `reward` runs a reward model with the heads "
        "helpfulness, correctness and coherence.",
    )
    categories: list[Category] = Field(
        min_length=1,
        description="What it judges. math: whether an answer that failed by rule is right all the same; science: how near an "
        "answer is to the reference; instruction_following: it writes constraints for queries without any; multi_turn and "
        "general: coherence, correctness and helpfulness.",
    )
    second: bool = Field(
        False,
        description="Asked once more about a sample of what other judges decided; no verdict rests on it. Best of another "
        "family than theirs and the teachers'.",
    )
    trust_remote_code: bool = Field(
        False, description="Engine `reward`: run the class that the model's own files define, of the same revision."
    )
    max_model_len: Positive = Field(16384, description="Longest prompt and judgement together, in tokens.")
    max_tokens: Positive = Field(2048, description="Longest judgement, in tokens; one that is cut decides nothing.")

    @model_validator(mode="after")
    def _categories_fit(self) -> Judge:
        if "code" in self.categories:
            raise ValueError("code is decided by its tests: remove `code` from the categories of the judge")
        if self.second and "instruction_following" in self.categories:
            raise ValueError(
                "a second judge is asked about answers, and instruction_following has rules for these: remove it from the "
                "categories of the judge"
            )
        other = sorted(set(self.categories) - set(REWARDED))
        if self.engine == "reward" and other:
            raise ValueError(
                f"a reward model judges {' and '.join(REWARDED)}, not {other[0]}: use another engine for it"
            )
        return self


class Audit(Block):
    """How the verdicts themselves are checked."""

    sample: Annotated[int, Field(ge=0)] = Field(
        200, description="Attempts per teacher that are verified again under load; a verdict that changes is reported."
    )
    load: Positive = Field(8, description="Verifications at once per core while they are.")


class Verification(Block):
    """What counts as a right answer."""

    threshold: Probability = Field(0.9, description="Smallest score that passes.")
    thresholds: dict[Category, Probability] = Field(default_factory=dict, description="Overrides per category.")
    max_tests: Positive = Field(10, description="Tests run per code query: the first ones.")
    deadline_seconds: Positive = Field(10, description="CPU time of one rule-based comparison; beyond it: unknown.")
    sandbox: Sandbox = Field(default_factory=Sandbox, description="Limits on model-written code.")
    judges: dict[Name, Judge] = Field(
        default_factory=dict,
        description="Models that judge what rules cannot, by name. Without one, such answers are `unknown`.",
    )
    audit: Audit = Field(default_factory=Audit, description="How the verdicts themselves are checked.")

    @model_validator(mode="after")
    def _one_judge_each(self) -> Verification:
        for category in CATEGORIES:
            names = [name for name, judge in self.judges.items() if category in judge.categories and not judge.second]
            if len(names) > 1:
                raise ValueError(f"{category} has the judges {' and '.join(names)}: leave it to one of them")
        return self

    @property
    def asked(self) -> list[str]:
        """The judges of answers, in the order in which they are asked."""
        return [
            name
            for name, judge in self.judges.items()
            if set(judge.categories) != {"instruction_following"} and not judge.second
        ]

    @property
    def asked_again(self) -> list[str]:
        """The judges that are asked about a sample of what judges decided: the second ones, and of the first those whose
        question puts reference and answer in an order that can be changed."""
        two = {"math", "science"}
        first = [name for name in self.asked if two & set(self.judges[name].categories)]
        return [*first, *(name for name, judge in self.judges.items() if judge.second)] if self.asked else []

    def table(self, stem: str, before: str | None = None) -> str:
        """Path of a round's verdicts after all judges, or as they are ``before`` one. Each hands its table on to the next;
        ``stem`` is the path of the verdicts by rule, without its ending."""
        asked = self.asked[: self.asked.index(before)] if before else self.asked
        return f"{stem}.{asked[-1]}.parquet" if asked else f"{stem}.parquet"

    def judge_of(self, category: str) -> str | None:
        """The name of the judge for ``category``, None where there is none."""
        names = (name for name, judge in self.judges.items() if category in judge.categories and not judge.second)
        return next(names, None)

    def threshold_of(self, category: str) -> float:
        """The threshold that holds for ``category``."""
        return self.thresholds.get(category, self.threshold)


class Quantile(Block):
    """A threshold that follows the data."""

    quantile: float = Field(
        gt=0,
        le=1,
        description="Drop what lies above the smallest perplexity that this share of the traces does not exceed.",
    )


class Perplexity(Block):
    """The perplexity filter."""

    scorers: dict[Name, Loaded] = Field(
        min_length=1,
        description="Models whose perplexity is taken, by name. The first filters and is the perplexity of figures and export; "
        "the others stand beside it in the statistics.",
    )
    scope: Literal["response", "query_and_response"] = Field("response", description="Which tokens count.")
    max_length: Positive = Field(
        32767,
        description="Most tokens of query and response together that are read: one less than the scorers' context, or less.",
    )
    overlong: Literal["first_tokens", "unscored"] = Field(
        "first_tokens",
        description="Longer rows: `first_tokens` scores them on their first `max_length` tokens; `unscored` leaves them without a "
        "perplexity, and no threshold drops them.",
    )
    thresholds: dict[Name, Annotated[float, Field(ge=1)] | Quantile] = Field(
        default_factory=dict,
        description="Per teacher: drop traces above it, a number or {quantile: 0.99}. A teacher without one drops none.",
    )

    @property
    def first(self) -> str:
        """The name of the scorer that filters."""
        return next(iter(self.scorers))


class Ngrams(Block):
    """The frequent n-gram filter."""

    size: Positive = Field(20, description="Tokens per n-gram.")
    max_count: Positive = Field(20, description="An n-gram seen more often in the teacher's data is frequent.")
    action: Literal["drop_row", "drop_span"] = Field(
        "drop_row",
        description="drop_row: drop traces that hold a frequent n-gram; drop_span: cut it out of them, and drop those that "
        "have lost their structure.",
    )
    tokenizer: ModelRef = Field(description="Whose tokens; also the tokenizer of every length in tables and figures.")


class Structure(Block):
    """What is refused for its form, beside odd turns and missing parts, which always are."""

    leaks: bool = Field(
        True,
        description="Drop traces with a template token or another family's thinking tags in the response or an earlier turn.",
    )
    max_foreign_share: Probability | None = Field(
        None, description="Drop traces with a larger share of letters in scripts that their query does not use."
    )
    loops: bool = Field(False, description="Drop traces whose thinking or answer ends in a loop.")


class Repetition(Block):
    """The filter of responses that repeat a phrase over and over."""

    min_tokens: Positive = Field(description="Tokens of the phrase, of the n-gram filter's tokenizer, or more.")
    min_times: Annotated[int, Field(ge=2)] = Field(description="How often it stands there in a row, or more often.")


Kind = Literal[
    "parallel",
    "own_passes",
    "equal_rows",
    "equal_tokens",
    "length_matched",
    "perplexity_matched",
    "length_perplexity_matched",
    "score_quantile",
    "format_normalised",
]
#: Kinds that a setting of a control is of.
_SETTINGS_OF = {
    "length_bins": ("length_matched", "length_perplexity_matched"),
    "perplexity_bins": ("perplexity_matched", "length_perplexity_matched"),
    "share": ("score_quantile",),
}
Bins = Annotated[int, Field(ge=1)] | Annotated[list[float], Field(min_length=1)]


class Control(Block):
    """A dataset of each teacher, such that the datasets may be compared."""

    kind: Kind | None = Field(
        None,
        description="parallel: queries every teacher solved; own_passes: all of a teacher's own; equal_rows, equal_tokens: own "
        "passes cut to the smallest teacher's; length_matched, perplexity_matched, length_perplexity_matched: as many of each "
        "category and bin for every teacher; score_quantile: the best-scored of each category; format_normalised: parallel with "
        "the text in one format. None takes the control's name.",
    )
    length_bins: Bins | None = Field(
        None,
        description="Bins of length: limits in tokens, or how many quantiles of each category; none: 10 quantiles.",
    )
    perplexity_bins: Bins | None = Field(
        None, description="Bins of perplexity: limits, or how many quantiles of each category; none: 10 quantiles."
    )
    share: float | None = Field(
        None, gt=0, le=1, description="score_quantile: share of each category that is kept; none: 0.5."
    )

    @model_validator(mode="after")
    def _settings_fit(self) -> Control:
        for key, kinds in _SETTINGS_OF.items():
            value = getattr(self, key)
            if value is not None and self.kind not in kinds:
                raise ValueError(f"kind {self.kind} takes no `{key}`, which is of {' and '.join(kinds)}: remove it")
            if isinstance(value, list) and value != sorted(set(value)):
                raise ValueError(f"{key} {value} do not rise: list the limits from the smallest on, each once")
        return self


def _named_controls(value: Any) -> Any:
    """A list of kinds as a mapping from name to control; a control without a kind is of the kind of its name."""
    if isinstance(value, list):
        if len(set(map(str, value))) < len(value):
            raise ValueError("a control is listed twice: name two of one kind in a mapping")
        value = {str(name): {} for name in value}
    if not isinstance(value, dict):
        return value
    return {
        name: {"kind": name, **(control or {})} if control is None or isinstance(control, dict) else control
        for name, control in value.items()
    }


class Publication(Block):
    """Who publishes the exports: for their metadata alone."""

    creator: str | None = Field(None, description="Person or organisation that publishes them.")
    url: str | None = Field(None, pattern=r"^https?://", description="Where they are published.")
    date: str | None = Field(
        None, pattern=r"^\d{4}-\d\d-\d\d$", description="Day of publication, `YYYY-MM-DD` in quotes."
    )


class Curation(Block):
    """Quality filters, and the datasets built from what passes."""

    structure: Structure = Field(default_factory=Structure, description="Structure filter.")
    drop_duplicates: bool = Field(
        False,
        description="Of equal responses of a teacher to different queries, keep only that to the smallest `query_id`.",
    )
    perplexity: Perplexity | None = Field(None, description="Perplexity filter; none leaves perplexities empty.")
    repetition: Repetition | None = Field(
        None, description="Drop traces that repeat a phrase right after itself; none drops none."
    )
    ngrams: Ngrams = Field(description="Frequent n-gram filter.")
    contaminated_responses: Literal["measure", "drop"] = Field(
        "measure",
        description="What becomes of traces whose response holds a benchmark problem that their query does not. The paper "
        "decontaminates queries alone, and so does `measure`.",
    )
    controls: Annotated[
        dict[Name, Control], BeforeValidator(_named_controls, json_schema_input_type=list[Kind] | dict[Name, Control])
    ] = Field(
        default_factory=lambda: {"parallel": Control(kind="parallel")},
        min_length=1,
        description="Datasets to build, by name: the figures show the first. A list of kinds will do where no setting "
        "is needed.",
    )
    release: Publication = Field(
        default_factory=Publication, description="Who publishes the exports, for their metadata."
    )

    @model_validator(mode="after")
    def _controls_fit(self) -> Curation:
        for name, control in self.controls.items():
            if name == "models":
                raise ValueError("no control may be called `models`: results of `evaluation.models` have that name")
            if self.perplexity is None and "perplexity" in (control.kind or ""):
                raise ValueError(f"control {name} matches perplexities, and none are computed: add `perplexity`")
        return self


class Lora(Block):
    """Low-rank adapters on all linear layers instead of full fine-tuning; merged into the student at its end."""

    rank: Positive = Field(64, description="Rank of the adapters.")
    alpha: Positive = Field(128, description="Their weight is alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout in front of the adapters.")


class Recipe(Block):
    """One training recipe for every teacher's dataset."""

    learning_rate: float = Field(8e-5, gt=0, description="Peak learning rate.")
    warmup: Probability = Field(0.05, description="Share of the steps that warm up; cosine to zero follows.")
    epochs: float = Field(2, gt=0, description="Passes over the dataset; ignored where `max_steps` is set.")
    max_steps: Positive | None = Field(None, description="Optimizer steps; none trains for `epochs`.")
    batch_size: Positive = Field(64, description="Packed sequences per optimizer step, over all devices.")
    micro_batch_size: Positive = Field(1, description="Packed sequences per device and forward pass.")
    max_length: Positive = Field(32768, description="Longer samples are excluded, never cut; also the packed length.")
    packing: bool = Field(True, description="Fill sequences with several samples that do not see each other.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    adam_beta2: float = Field(0.95, gt=0, lt=1, description="AdamW second-moment decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient clipping.")
    bf16: bool = Field(True, description="bfloat16 on a GPU (master weights stay float32); false trains in float32.")
    gradient_checkpointing: bool = Field(True, description="Trade time for memory.")
    attention: str = Field(
        "sdpa",
        pattern=r"^(sdpa|eager|flex_attention|flash_attention_[234]|[\w.-]+/[\w.-]+)$",
        description="Attention kernels by transformers' name; `flash_attention_2` comes from the hub and needs a GPU.",
    )
    liger: bool = Field(False, description="Liger's fused kernels; needs a GPU.")
    lora: Lora | None = Field(None, description="Train adapters only; none trains all weights.")
    deepspeed: Literal["zero2", "zero3"] | None = Field(None, description="DeepSpeed stage; none trains without it.")
    offload: bool = Field(
        False, description="Keep DeepSpeed's optimizer states (of zero3 the weights too) in main memory."
    )
    devices: Positive = Field(1, description="Processes per student, over all nodes; each has a GPU of its own.")

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if self.batch_size % (self.micro_batch_size * self.devices):
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of micro_batch_size x devices = "
                f"{self.micro_batch_size * self.devices}: change one of them"
            )
        if self.offload and self.deepspeed is None:
            raise ValueError("offload is DeepSpeed's: name a `deepspeed` stage, or remove it")
        if self.lora is not None and self.deepspeed == "zero3":
            raise ValueError(
                "adapters are merged where all weights are at hand: use deepspeed zero2 or none with `lora`"
            )
        return self


class Architecture(Block):
    """A Llama-type student trained from a seeded initialisation instead of a base model."""

    hidden_size: Positive = Field(64, description="Width; a multiple of the 32-wide heads vLLM serves on CPU.")
    intermediate_size: Positive = Field(192, description="Width of the feed-forward layers.")
    num_hidden_layers: Positive = Field(4, description="Layers.")
    num_attention_heads: Positive = Field(2, description="Attention heads.")
    max_position_embeddings: Positive = Field(1024, description="Longest sequence.")
    initializer_range: float = Field(
        0.08,
        gt=0,
        description="Standard deviation of the initial weights; narrow models learn faster above the usual 0.02.",
    )
    tokenizer: str = Field(description="Folder of the tokenizer.")
    seed: int = Field(0, ge=0, description="Seed of the initial weights: one initialisation for all students.")


class Training(Block):
    """The students."""

    base: ModelRef | None = Field(None, description="Base model to fine-tune; give this or `architecture`.")
    architecture: Architecture | None = Field(None, description="Student to train from scratch.")
    system_prompt: str = Field("", description="System message of training samples; empty sends none.")
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1, description="Training seeds: one student each.")
    checkpoint_steps: Positive = Field(
        200,
        description="Optimizer steps between checkpoints: what a killed training loses at most. Changes no student.",
    )
    nodes: Positive = Field(1, description="Machines that share the devices of one student; more than one needs Slurm.")
    recipe: Recipe = Field(default_factory=Recipe, description="Identical for every teacher.")

    @model_validator(mode="after")
    def _one_start(self) -> Training:
        if (self.base is None) == (self.architecture is None):
            raise ValueError("give exactly one of `base` and `architecture`")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds repeat: every student needs a seed of its own")
        if self.recipe.devices % self.nodes:
            raise ValueError(
                f"recipe.devices {self.recipe.devices} do not share out over {self.nodes} nodes: change one"
            )
        return self


class Benchmark(Block):
    """Problems that score a student."""

    label: str = Field(description="Name in figures and tables.")
    role: Literal["AIME2024", "AIME2025", "MATH500", "LiveCodeBench"] | None = Field(
        None,
        description="The benchmark of the paper whose place it takes in Tables 1 and 2; none stands beside no printed value.",
    )
    path: str | None = Field(None, description="Local JSONL file; give this or `hub`.")
    hub: str | None = Field(None, description="Hub data set id; needs `revision`.")
    task: str | None = Field(
        None,
        description="A task of LightEval by its name (`gsm8k`): its prompts, references and metric. Its data set is read at "
        "`revision`, or from a `path` with its columns.",
    )
    revision: str | None = Field(None, description="Commit (40 hex digits) of the hub data set.")
    file: str | None = Field(None, description="One file of the hub data set, read by itself; none loads the data set.")
    subset: str | None = Field(None, description="Configuration name of the hub data set.")
    split: str = Field("test", description="Split of the hub data set.")
    category: Literal["math", "code", "task"] = Field(
        description="How answers are verified; `task`: by the metric of a `task` alone, whose full mark is a pass."
    )
    layout: Literal["livecodebench"] | None = Field(
        None, description="The layout of livecodebench/code_generation_lite, in the place of a column mapping."
    )
    columns: Columns | None = Field(None, description="Column mapping; give this or `layout`.")
    date_column: str | None = Field(None, description="Column with the contest date.")
    date_from: str | None = Field(None, description="First contest date taken, YYYY-MM-DD.")
    date_to: str | None = Field(None, description="Last contest date taken, YYYY-MM-DD.")
    exclude: list[str] = Field(
        default_factory=list, description="Ids of problems to leave out: faulty ones, or ones that no test decides."
    )
    expected_problems: Positive | None = Field(None, description="Fail unless this many problems are selected.")
    samples: Positive = Field(1, description="Samples per problem.")

    @model_validator(mode="after")
    def _one_place(self) -> Benchmark:
        if self.task is not None:
            return self._of_a_task()
        if self.category == "task":
            raise ValueError("category task is for LightEval's tasks: name a `task`, or the category math or code")
        if (self.path is None) == (self.hub is None):
            raise ValueError("name exactly one of `path`, `hub` and `task`")
        if (self.layout is None) == (self.columns is None):
            raise ValueError("name exactly one of `layout` and `columns`")
        if self.layout == "livecodebench" and (self.date_column or self.category != "code"):
            raise ValueError("LiveCodeBench is code, and its layout has the date: remove `date_column`")
        self._check_revision(repr(self.hub) if self.hub else None)
        return self

    def _of_a_task(self) -> Benchmark:
        own = ("hub", "file", "subset", "layout", "columns", "date_column", "date_from", "date_to")
        given = [name for name in own if getattr(self, name) is not None]
        if given := given + (["split"] if self.split != type(self).model_fields["split"].default else []):
            raise ValueError(f"a `task` knows its data: remove {', '.join(given)}")
        if self.category == "code":
            raise ValueError(
                "LightEval would run programs without a sandbox: name the problems with `path` or `hub` and `columns`"
            )
        if self.path is None:
            self._check_revision(f"the data set of LightEval's {self.task}")
        return self

    def _check_revision(self, what: str | None) -> None:
        if what is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"revision {self.revision!r} of {what} is no commit: pin one with 40 hex digits")


class EvaluatedModel(ModelRef):
    """A model beside the students: a teacher, the base of the students, or one with published scores."""

    label: str = Field(description="Name in figures and tables.")
    colour: Colour = Field(description="Colour in figures.")
    answer_format: Literal["tags", "thinking_only"] = Field("tags", description="As for a teacher.")
    system_prompt: str | None = Field(
        None, description="System message; empty sends none, and without the key it is the students'."
    )
    tensor_parallel: Positive = Field(1, description="GPUs over which each layer is split.")
    data_parallel: Positive = Field(1, description="Engines side by side that share the samples out.")
    expected: dict[Name, tuple[float, float]] = Field(
        default_factory=dict,
        description="Per benchmark the lowest and highest pass@1, in percent, that a correct evaluation may give; `snakemake "
        "reference` fails outside.",
    )


class Evaluation(Prompting):
    """What the students are scored on, and how they are sampled."""

    benchmarks: dict[Name, Benchmark] = Field(description="Benchmarks by name.", min_length=1)
    models: dict[Name, EvaluatedModel] = Field(
        default_factory=dict, description="Models that are evaluated beside the students, by name."
    )
    sampling: Sampling = Field(default_factory=Sampling, description="The same for every student and benchmark.")
    max_model_len: Positive = Field(65536, description="Longest prompt and response together, in tokens.")
    tensor_parallel: Positive = Field(1, description="GPUs one engine spans.")
    data_parallel: Positive = Field(1, description="Engines side by side that share a student's samples out.")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field("auto", description="Weights in memory.")

    @model_validator(mode="after")
    def _expectations_fit(self) -> Evaluation:
        for name, model in self.models.items():
            unknown = sorted(set(model.expected) - set(self.benchmarks))
            if unknown:
                raise ValueError(
                    f"models.{name}.expected names {unknown[0]!r}, which is no benchmark: use one of {sorted(self.benchmarks)}"
                )
            for benchmark, (low, high) in model.expected.items():
                if not 0 <= low <= high <= 100:
                    raise ValueError(
                        f"models.{name}.expected.{benchmark} is {[low, high]}: give percents, lowest first"
                    )
        return self


class Statistics(Block):
    """Intervals and tests."""

    resamples: Positive = Field(10000, description="Bootstrap and permutation resamples.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Level of every interval.")
    seed: int = Field(0, ge=0, description="Seed of the resampling.")


class Figures(Block):
    """Layout of the figures."""

    length_bin: Positive = Field(1024, description="Width of the length bins of Figure 3, in tokens.")
    length_bins: Positive = Field(10, description="Number of bins before the open last one.")
    smoothing: Positive = Field(50, description="Steps of the moving average of Figure 6.")


class Release(Block):
    """Published traces of one teacher that are audited."""

    files: dict[Category, str | list[str]] = Field(
        min_length=1,
        description="By category the .jsonl, .jsonl.zst or .parquet files: local paths (a folder stands for all its files), or "
        "names within `hub`.",
    )
    hub: str | None = Field(None, description="Hub data set id; needs `revision`. None: the files are local.")
    revision: str | None = Field(None, description="Commit (40 hex digits) of the hub data set.")
    layout: TraceLayout = Field(
        "auto",
        description="How the traces are written, as `traces_layout` of a teacher; `auto` tells it from the first rows of "
        "each file, and reports it.",
    )
    label: str | None = Field(None, description="Name in figures and tables; none takes the release's name.")
    colour: Colour | None = Field(None, description="Colour in figures; none takes the next of eight.")
    model: str = Field("unknown", description="The model that wrote the responses, where it is known.")
    licence: str = Field("unknown", description="SPDX name, or the words of the card; it goes with every row.")

    @model_validator(mode="after")
    def _one_place(self) -> Release:
        if self.hub is None and self.revision is not None:
            raise ValueError("local files take no revision: remove `revision`, or name the data set in `hub`")
        if self.hub is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"revision {self.revision!r} of {self.hub!r} is no commit: pin one with 40 hex digits")
        return self

    def by_category(self) -> dict[Category, list[str]]:
        """The files of each category; of a local folder, all that lie in it. Raises :class:`ValueError` where there are none."""
        found: dict[Category, list[str]] = {}
        for category, named in self.files.items():
            paths = [named] if isinstance(named, str) else named
            if self.hub is None:
                paths = [file for path in paths for file in _trace_files(path)]
            if not paths:
                raise ValueError(f"files.{category} names no file: give at least one")
            found[category] = paths
        return found


def _trace_files(path: str) -> list[str]:
    """``path`` itself, or the files of traces in that folder. Raises :class:`ValueError` where there is nothing."""
    place = Path(locate(path))
    if place.is_file():
        return [path]
    if not place.is_dir():
        raise ValueError(f"{path}: no such file: correct the path, which is seen from {Path.cwd()}")
    within = (
        file.relative_to(place) for file in place.rglob("*") if file.is_file() and file.name.endswith(TRACE_SUFFIXES)
    )
    return sorted(str(Path(path) / file) for file in within)


class Releases(Block):
    """An audit of published traces: `snakemake audit`."""

    releases: dict[Name, Release] = Field(min_length=1, description="What is audited, side by side.")

    def study(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The study that audits the releases: the raw configuration ``raw`` with what it leaves out.

        A release is a teacher whose traces are there already, and each category of it a source of queries. Queries are looked
        at as they are: nothing is cleaned away, and near duplicates and contaminated queries are listed and stay.
        """
        sources: dict[str, Any] = {}
        teachers: dict[str, Any] = {}
        characters = 0
        for number, (name, release) in enumerate(self.releases.items()):
            try:
                files = release.by_category()
            except ValueError as error:
                raise ValueError(f"audit.releases.{name}: {error}") from None
            every = list(dict.fromkeys(path for paths in files.values() for path in paths))
            place = {"hub": release.hub, "revision": release.revision} if release.hub else {}
            for category, paths in files.items():
                sources[f"{name}_{category}"] = {
                    **place,
                    "file" if release.hub else "path": paths,
                    "category": category,
                    "licence": release.licence,
                    "layout": release.layout,
                }
            folder, within = release.hub, every
            if release.hub is None:
                common = os.path.commonpath([os.path.normpath(Path(path).absolute().parent) for path in every])
                folder = common if Path(every[0]).is_absolute() else _dotted(os.path.relpath(common))
                within = [os.path.relpath(path, common) for path in every]
                characters += sum(Path(locate(path)).stat().st_size * _growth(path) for path in every)
            teachers[name] = {
                "model": release.model,
                "label": release.label or name,
                "colour": release.colour or _COLOURS[number % len(_COLOURS)],
                "engine": "dataset",
                "traces": folder,
                "traces_revision": release.revision,
                "traces_files": within,
                "traces_layout": release.layout,
            }
        results = raw.get("results", f"results/{raw.get('study', 'audit')}")
        corpus = raw.get("corpus") or {}
        return {
            **raw,
            "results": results,
            "store": raw.get("store", f"{results}/store"),
            "corpus": {
                "sources": sources,
                "clean": {rule: {"drop": False} for rule in Clean.model_fields},
                "deduplicate": {"near": True, "drop": False},
                "decontaminate": {"drop": False},
                "shards": max(1, -(-characters // _SHARD_CHARACTERS)),
                **corpus,
            },
            "teachers": teachers,
            "curation": raw.get("curation") or {"ngrams": {"tokenizer": _QWEN}},
        }


#: Kinds of file that traces are published in.
TRACE_SUFFIXES = (".jsonl", ".jsonl.zst", ".parquet")
#: Traces of one shard of an audit, in characters: some 30,000 long ones.
_SHARD_CHARACTERS = 400 * 2**20
#: Whose tokens an audit counts, unless told: the tokenizer of the study's students (as config/paper.yaml pins it).
_QWEN = {"model": "Qwen/Qwen2.5-32B", "revision": "1818d35814b8319459f4bd55ed1ac8709630f003"}
#: Okabe and Ito's, which colour-blind readers can tell apart; no yellow, which is pale on white, and no black.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B")


def _dotted(path: str) -> str:
    return path if path.startswith("..") else f"./{path}".removesuffix("/.")


def _growth(path: str) -> int:
    """How much larger the rows of a file are than the file, at most."""
    return 1 if path.endswith(".jsonl") else 6


class Study(Block):
    """A whole study."""

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        # What an audit fills in: editors must not ask for it.
        json_schema_extra=lambda schema: schema.update(required=["study"]),
    )

    study: Name = Field(description="Name of the study.")
    results: str = Field("results", description="Folder of everything a run writes.")
    store: str = Field("results/store", description="Folder of the content-addressed store; may be shared by studies.")
    miniature: Miniature | None = Field(
        None, description="Corpus and benchmarks made by the project; none brings its own."
    )
    corpus: Corpus = Field(default_factory=lambda: Corpus(), description="Queries.")
    audit: Releases | None = Field(
        None, description="Published traces to audit: `corpus.sources` and `teachers` follow from them. None: a study."
    )
    teachers: dict[Name, Teacher] = Field(
        default_factory=dict,
        description="Teachers by name, in the order of the figures; none evaluates `evaluation.models` alone.",
    )
    plan: Plan = Field(default_factory=Plan, description="The estimate of `snakemake plan`.")
    verification: Verification = Field(default_factory=Verification, description="What counts as a right answer.")
    curation: Curation | None = Field(None, description="Quality filters and datasets; goes with teachers.")
    statistics: Statistics = Field(default_factory=Statistics, description="Intervals and tests.")
    training: Training | None = Field(None, description="Students; none stops after the statistics.")
    evaluation: Evaluation | None = Field(None, description="Benchmarks and how they are sampled.")
    figures: Figures = Field(default_factory=Figures, description="Layout of the figures.")

    @model_validator(mode="before")
    @classmethod
    def _audited(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not raw.get("audit"):
            return raw
        taken = [key for key in ("teachers", "training", "miniature") if raw.get(key)]
        taken += ["corpus.sources"] if (raw.get("corpus") or {}).get("sources") else []
        if taken:
            raise ValueError(f"an audit takes its queries and traces from `audit.releases`: remove `{taken[0]}`")
        try:
            return TypeAdapter(Releases).validate_python(raw["audit"]).study(raw)
        except ValidationError:
            return raw  # told with its key when the block itself is read

    @model_validator(mode="after")
    def _parts_fit(self) -> Study:
        if not self.teachers and (self.curation or self.training or not self.evaluation):
            raise ValueError(
                "without `teachers` there is nothing but `evaluation` to do: give teachers, or evaluation.models and neither "
                "curation nor training"
            )
        if self.teachers and not (self.curation and self.corpus.sources):
            raise ValueError("`teachers` need `corpus.sources` to answer and `curation` for what they say")
        if self.training and not self.evaluation:
            raise ValueError("`training` needs `evaluation`: say what the students are scored on")
        # The benchmarks of an audit score nobody: queries and responses are compared with them.
        if self.evaluation and not self.training and not self.evaluation.models and not self.audit:
            raise ValueError("`evaluation` has nothing to evaluate: give `training` or `evaluation.models`")
        perplexity = self.curation.perplexity if self.curation else None
        unknown = sorted(set(perplexity.thresholds) - set(self.teachers)) if perplexity else []
        if unknown:
            raise ValueError(
                f"curation.perplexity.thresholds names {unknown[0]!r}, which is no teacher: use one of {sorted(self.teachers)}"
            )
        return self


def check_config(raw: dict[str, Any], *, folders: bool = True) -> Study:
    """Validate a configuration mapping.

    ``folders`` asks that the local model and tokenizer folders exist, as seen from the working directory.
    Raises :class:`ConfigError` with one line per problem: key, value, remedy.
    """
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        # What follows from `audit` is missing where that cannot be read, and nobody need be told.
        told = [
            problem
            for problem in error.errors()
            if not (raw.get("audit") and problem["type"] == "missing" and len(problem["loc"]) == 1)
        ]
        raise ConfigError("\n".join(_line(problem) for problem in told or error.errors())) from None
    missing = _missing_folders(study) if folders else []
    if missing:
        raise ConfigError("\n".join(missing))
    return study


def unpinned_revisions(study: Study) -> list[str]:
    """The keys that hold :data:`UNPINNED`, in the order of the configuration."""

    def keys(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from keys(inner, f"{path}.{key}" if path else key)
        elif value == UNPINNED:
            yield path

    return list(keys(study.model_dump(), ""))


def _line(problem: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    if problem["type"] == "extra_forbidden":
        return f"config key {key}: unknown key (value {problem['input']!r}): remove it or correct its spelling; config/README.md lists every key"
    if problem["type"] == "missing":
        return f"config key {key}: missing: add it; config/README.md says what it means"
    value = problem["input"]
    shown = "" if isinstance(value, dict) else f" (value {value!r})"
    return f"config key {key}{shown}: {problem['msg'].removeprefix('Value error, ')}; config/README.md lists what is allowed"


def _missing_folders(study: Study) -> list[str]:
    wanted: dict[str, str] = {}
    for name, teacher in study.teachers.items():
        if teacher.is_loaded and teacher.is_local:
            wanted[f"teachers.{name}.model"] = teacher.model
        if teacher.traces and teacher.traces.startswith((".", "/")):
            wanted[f"teachers.{name}.traces"] = teacher.traces
    for name, judge in study.verification.judges.items():
        if judge.is_loaded and judge.is_local:
            wanted[f"verification.judges.{name}.model"] = judge.model
    perplexity = study.curation.perplexity if study.curation else None
    for name, scorer in perplexity.scorers.items() if perplexity else ():
        if scorer.is_local:
            wanted[f"curation.perplexity.scorers.{name}.model"] = scorer.model
    if study.curation and study.curation.ngrams.tokenizer.is_local:
        wanted["curation.ngrams.tokenizer.model"] = study.curation.ngrams.tokenizer.model
    for name, model in (study.evaluation.models if study.evaluation else {}).items():
        if model.is_local:
            wanted[f"evaluation.models.{name}.model"] = model.model
    if study.training and study.training.architecture:
        wanted["training.architecture.tokenizer"] = study.training.architecture.tokenizer
    if study.training and study.training.base and study.training.base.is_local:
        wanted["training.base.model"] = study.training.base.model
    return [
        f"config key {key} (value {value!r}): no such folder: put the model there or correct the path"
        for key, value in wanted.items()
        if not Path(locate(value)).is_dir()
    ]
