"""The configuration of a study: one pydantic model per block, validated before any job starts.

The models are the single source: ``make config`` writes ``workflow/schemas/config.schema.json`` and the commented
``config/config.yaml`` from them, and a test fails when either drifts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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

    path: str | None = Field(None, description="Local .jsonl, .jsonl.zst, .csv or .parquet file; give this or `hub`.")
    hub: str | None = Field(None, description="Hub data set id; needs `revision`.")
    revision: str | None = Field(None, description="Commit (40 hex digits) of the hub data set.")
    file: str | None = Field(None, description="One file of the hub data set, read by itself; none loads the data set.")
    subset: str | None = Field(None, description="Configuration name of the hub data set.")
    split: str = Field("train", description="Split of the hub data set.")
    category: Category = Field(description="The one category of this source.")
    licence: str = Field(description="SPDX name, or the words of the source.")
    limit: Positive | None = Field(None, description="Take at most this many rows; none takes all.")
    where: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict, description="Take only rows with these values; a list allows any of it."
    )
    columns: Columns = Field(description="Column mapping.")
    guess: bool = Field(False, description="True where the paper does not name this source for this category.")

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.path is None) == (self.hub is None):
            raise ValueError("name exactly one of `path` and `hub`")
        if self.hub is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"revision {self.revision!r} of {self.hub!r} is no commit: pin one with 40 hex digits")
        return self


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

    sources: dict[Name, Source] = Field(description="Query sources by name.", min_length=1)
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
#: What figures and tables alone use of a teacher.
PRESENTED = {"label", "colour", "price_per_million_tokens", "price_per_device_hour"}


class Serving(ModelRef):
    """A model and how it is served: by vLLM in the job itself, or by an endpoint."""

    endpoint: Endpoint | None = Field(None, description="Engine `openai`: the server.")
    max_model_len: Positive = Field(65536, description="Longest prompt and response together, in tokens.")
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
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel if self.engine == "vllm" else 0

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
    traces_layout: Literal["am", "am_r1", "open_thoughts", "messages"] | None = Field(
        None,
        description="How `traces` are written. `am`: AM-Thinking-v1-Distilled and AM-Qwen3-Distilled (conversations, info); `am_r1`: "
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
            if self.traces or self.traces_revision or self.traces_layout:
                raise ValueError(f"engine `{self.engine}` reads no traces: remove `traces`, or set engine: dataset")
            return self
        if self.traces is None or self.traces_layout is None:
            raise ValueError(
                "engine `dataset` needs `traces`, a hub data set or a folder of published files, and their `traces_layout`"
            )
        if "attempts" in self.model_fields_set:
            raise ValueError("engine `dataset` holds the attempts that were published: remove `attempts`")
        local = self.traces.startswith(("./", "../", "/"))
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
    trust_remote_code: bool = Field(
        False, description="Engine `reward`: run the class that the model's own files define, of the same revision."
    )
    max_model_len: Positive = Field(16384, description="Longest prompt and judgement together, in tokens.")
    max_tokens: Positive = Field(2048, description="Longest judgement, in tokens; one that is cut decides nothing.")

    @model_validator(mode="after")
    def _categories_fit(self) -> Judge:
        if "code" in self.categories:
            raise ValueError("code is decided by its tests: remove `code` from the categories of the judge")
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
            names = [name for name, judge in self.judges.items() if category in judge.categories]
            if len(names) > 1:
                raise ValueError(f"{category} has the judges {' and '.join(names)}: leave it to one of them")
        return self

    @property
    def asked(self) -> list[str]:
        """The judges of answers, in the order in which they are asked."""
        return [name for name, judge in self.judges.items() if set(judge.categories) != {"instruction_following"}]

    def table(self, stem: str, before: str | None = None) -> str:
        """Path of a round's verdicts after all judges, or as they are ``before`` one. Each hands its table on to the next;
        ``stem`` is the path of the verdicts by rule, without its ending."""
        asked = self.asked[: self.asked.index(before)] if before else self.asked
        return f"{stem}.{asked[-1]}.parquet" if asked else f"{stem}.parquet"

    def judge_of(self, category: str) -> str | None:
        """The name of the judge for ``category``, None where there is none."""
        return next((name for name, judge in self.judges.items() if category in judge.categories), None)

    def threshold_of(self, category: str) -> float:
        """The threshold that holds for ``category``."""
        return self.thresholds.get(category, self.threshold)


class Perplexity(Block):
    """The perplexity filter."""

    scorer: ModelRef = Field(description="The model whose perplexity is taken.")
    scope: Literal["response", "query_and_response"] = Field("response", description="Which tokens count.")
    max_length: Positive = Field(32768, description="Longer rows are scored on their first tokens.")
    thresholds: dict[Name, float] = Field(
        default_factory=dict, description="Per teacher: drop traces above it. A teacher without one drops none."
    )


class Ngrams(Block):
    """The frequent n-gram filter."""

    size: Positive = Field(20, description="Tokens per n-gram.")
    max_count: Positive = Field(
        20, description="Drop traces that hold an n-gram seen more often in the teacher's data."
    )
    tokenizer: ModelRef = Field(description="Whose tokens; also the tokenizer of every length in tables and figures.")


class Release(Block):
    """Who publishes the exports: for their metadata alone."""

    creator: str | None = Field(None, description="Person or organisation that publishes them.")
    url: str | None = Field(None, pattern=r"^https?://", description="Where they are published.")
    date: str | None = Field(
        None, pattern=r"^\d{4}-\d\d-\d\d$", description="Day of publication, `YYYY-MM-DD` in quotes."
    )


class Curation(Block):
    """Quality filters, and the datasets built from what passes."""

    perplexity: Perplexity | None = Field(None, description="Perplexity filter; none leaves perplexities empty.")
    ngrams: Ngrams = Field(description="Frequent n-gram filter.")
    controls: list[Literal["parallel", "own_passes", "equal_rows", "equal_tokens"]] = Field(
        ["parallel"],
        min_length=1,
        description="Datasets to build. parallel: queries every teacher solved; own_passes: all of a teacher's own; "
        "equal_rows, equal_tokens: own passes cut to the smallest teacher's.",
    )
    release: Release = Field(default_factory=Release, description="Who publishes the exports, for their metadata.")


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
    bf16: bool = Field(True, description="bfloat16 training; false trains in float32.")
    gradient_checkpointing: bool = Field(True, description="Trade time for memory.")
    deepspeed: Literal["zero2", "zero3"] | None = Field(None, description="DeepSpeed stage; none trains without it.")
    devices: Positive = Field(1, description="Processes per student.")


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
    recipe: Recipe = Field(default_factory=Recipe, description="Identical for every teacher.")

    @model_validator(mode="after")
    def _one_start(self) -> Training:
        if (self.base is None) == (self.architecture is None):
            raise ValueError("give exactly one of `base` and `architecture`")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds repeat: every student needs a seed of its own")
        return self


class Benchmark(Block):
    """Problems that score a student."""

    label: str = Field(description="Name in figures and tables.")
    role: Literal["AIME2024", "AIME2025", "MATH500", "LiveCodeBench"] = Field(
        description="The benchmark of the paper whose place it takes in Tables 1 and 2."
    )
    path: str | None = Field(None, description="Local JSONL file; give this or `hub`.")
    hub: str | None = Field(None, description="Hub data set id; needs `revision`.")
    revision: str | None = Field(None, description="Commit (40 hex digits) of the hub data set.")
    file: str | None = Field(None, description="One file of the hub data set, read by itself; none loads the data set.")
    subset: str | None = Field(None, description="Configuration name of the hub data set.")
    split: str = Field("test", description="Split of the hub data set.")
    category: Literal["math", "code"] = Field(description="How answers are verified.")
    columns: Columns = Field(description="Column mapping.")
    date_column: str | None = Field(None, description="Column with the contest date.")
    date_from: str | None = Field(None, description="First contest date taken, YYYY-MM-DD.")
    date_to: str | None = Field(None, description="Last contest date taken, YYYY-MM-DD.")
    expected_problems: Positive | None = Field(None, description="Fail unless this many problems are selected.")
    samples: Positive = Field(description="Samples per problem.")

    @model_validator(mode="after")
    def _one_place(self) -> Benchmark:
        if (self.path is None) == (self.hub is None):
            raise ValueError("name exactly one of `path` and `hub`")
        if self.hub is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise ValueError(f"revision {self.revision!r} of {self.hub!r} is no commit: pin one with 40 hex digits")
        return self


class Evaluation(Prompting):
    """What the students are scored on, and how they are sampled."""

    benchmarks: dict[Name, Benchmark] = Field(description="Benchmarks by name.", min_length=1)
    sampling: Sampling = Field(default_factory=Sampling, description="The same for every student and benchmark.")
    max_model_len: Positive = Field(65536, description="Longest prompt and response together, in tokens.")
    tensor_parallel: Positive = Field(1, description="GPUs one engine spans.")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field("auto", description="Weights in memory.")


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


class Study(Block):
    """A whole study."""

    study: Name = Field(description="Name of the study.")
    results: str = Field("results", description="Folder of everything a run writes.")
    store: str = Field("results/store", description="Folder of the content-addressed store; may be shared by studies.")
    miniature: Miniature | None = Field(
        None, description="Corpus and benchmarks made by the project; none brings its own."
    )
    corpus: Corpus = Field(description="Queries.")
    teachers: dict[Name, Teacher] = Field(min_length=1, description="Teachers by name, in the order of the figures.")
    plan: Plan = Field(default_factory=Plan, description="The estimate of `snakemake plan`.")
    verification: Verification = Field(default_factory=Verification, description="What counts as a right answer.")
    curation: Curation = Field(description="Quality filters and datasets.")
    statistics: Statistics = Field(default_factory=Statistics, description="Intervals and tests.")
    training: Training | None = Field(None, description="Students; none stops after the statistics.")
    evaluation: Evaluation | None = Field(None, description="Benchmarks and how they are sampled.")
    figures: Figures = Field(default_factory=Figures, description="Layout of the figures.")

    @model_validator(mode="after")
    def _parts_fit(self) -> Study:
        if (self.training is None) != (self.evaluation is None):
            raise ValueError("`training` and `evaluation` come together: give both or neither")
        perplexity = self.curation.perplexity
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
        raise ConfigError("\n".join(_line(problem) for problem in error.errors())) from None
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
        if teacher.traces and teacher.traces.startswith(("./", "../", "/")):
            wanted[f"teachers.{name}.traces"] = teacher.traces
    for name, judge in study.verification.judges.items():
        if judge.is_loaded and judge.is_local:
            wanted[f"verification.judges.{name}.model"] = judge.model
    if study.curation.perplexity and study.curation.perplexity.scorer.is_local:
        wanted["curation.perplexity.scorer.model"] = study.curation.perplexity.scorer.model
    if study.curation.ngrams.tokenizer.is_local:
        wanted["curation.ngrams.tokenizer.model"] = study.curation.ngrams.tokenizer.model
    if study.training and study.training.architecture:
        wanted["training.architecture.tokenizer"] = study.training.architecture.tokenizer
    if study.training and study.training.base and study.training.base.is_local:
        wanted["training.base.model"] = study.training.base.model
    return [
        f"config key {key} (value {value!r}): no such folder: put the model there or correct the path"
        for key, value in wanted.items()
        if not Path(locate(value)).is_dir()
    ]
