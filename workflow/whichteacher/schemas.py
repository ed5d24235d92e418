"""Every table that passes between rules, declared once.

Text columns are UTF-8. Scores lie in [0, 1], durations are seconds, lengths are tokens of the tokenizer named in the
table's provenance (see :mod:`whichteacher.tables`). A column that may be empty is nullable; all others never are, and
:func:`whichteacher.tables.write_table` refuses a table that breaks this.
"""

from __future__ import annotations

import pyarrow as pa


def _schema(**columns: pa.DataType | tuple[pa.DataType, str]) -> pa.Schema:
    """A schema from ``name=type`` (never null) or ``name=(type, "null")``."""
    fields = []
    for name, declared in columns.items():
        nullable = isinstance(declared, tuple)
        fields.append(pa.field(name, declared[0] if nullable else declared, nullable=nullable))
    return pa.schema(fields)


STRING, INT, FLOAT, BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
TURNS = pa.list_(pa.struct([pa.field("role", STRING, False), pa.field("content", STRING, False)]))

QUERIES = _schema(
    query_id=STRING,  # content hash of the normalised turns, see whichteacher.queries.query_id
    source=STRING,
    source_row=STRING,  # the id the source gave the row, or its line number
    category=STRING,
    licence=STRING,
    turns=TURNS,  # all turns up to and including the user's last message
    reference=(STRING, "null"),
    reference_type=(STRING, "null"),  # number, expression, set, interval, choice, text
    tests=(
        STRING,
        "null",
    ),  # JSON, see whichteacher.code_tests: {"call_type": "assert"|"std", "assert_case": [...]|"inputs": [...], "outputs": [...]}
    constraints=(STRING, "null"),  # JSON: {"instruction_id_list": [...], "kwargs": [...]}
)

SELECTED = _schema(
    source=STRING,
    row=INT,  # position in the source's imported table
    query_id=STRING,
)

BENCHMARK_PROBLEMS = _schema(
    problem_id=STRING,
    benchmark=STRING,
    category=STRING,
    prompt=STRING,
    reference=(STRING, "null"),
    reference_type=(STRING, "null"),
    tests=(STRING, "null"),
    difficulty=(INT, "null"),
    starter_code=(STRING, "null"),  # LiveCodeBench: what the program begins with, a part of the prompt
    lighteval_doc=(STRING, "null"),  # JSON: what the metric of a LightEval task needs beside the prompt
)

DUPLICATES = _schema(
    kept=STRING,  # query_id of the survivor; that of equal ones may have a near duplicate that survives it
    kept_source=STRING,
    kept_source_row=STRING,
    dropped=STRING,  # query_id of the row that it stands for
    dropped_source=STRING,
    dropped_source_row=STRING,
    method=STRING,  # exact, near
    similarity=FLOAT,  # Jaccard similarity of the two, 1 where they are equal
)

CONTAMINATION = _schema(
    query_id=STRING,
    source=STRING,
    benchmark=STRING,
    problem_id=STRING,
    method=STRING,  # exact, ngram, embedding
    score=FLOAT,  # 1.0, weighted share of the problem's n-grams, or cosine similarity
    dropped=BOOL,  # whether the query falls for it; no: other numbers or other telling words, so another problem. An audit
    # lists it and keeps it
    query=STRING,
    problem=STRING,
)

CONTAMINATED_RESPONSES = _schema(
    attempt_id=STRING,
    query_id=STRING,
    benchmark=STRING,
    problem_id=STRING,
    share=FLOAT,  # weighted share of the problem's n-grams that stand in the response
    query_share=FLOAT,  # of those that stand in the query
    query_flagged=BOOL,  # whether the query falls for a problem itself: then it is no news that the response quotes one
    quotation=STRING,  # the response around the first of the n-grams
    problem=STRING,
)

CONTAMINATION_SWEEP = _schema(
    method=STRING,  # exact, ngram, embedding
    threshold=FLOAT,
    queries=INT,  # flagged by this method at this threshold
    dropped=INT,  # of these, the queries that this method would drop
)

LEDGER = _schema(
    step=STRING,  # the rule
    scope=STRING,  # what the step ran on: a source, a teacher, teacher/shard, "all"
    reason=STRING,  # "in", "kept", or why rows were dropped
    rows=INT,
)

DROPPED = _schema(query_id=STRING, step=STRING, scope=STRING, reason=STRING, detail=(STRING, "null"))

ATTEMPTS = _schema(
    attempt_id=STRING,  # the store's key of the row
    query_id=STRING,
    teacher=STRING,
    shard=INT,
    round=INT,
    attempt=INT,  # 0, 1, 2, ... over all rounds of a query
    prompt=STRING,  # the rendered bytes the engine was given
    text=STRING,  # the raw response
    thinking=(STRING, "null"),  # None: the response has no closed thinking part
    answer=(STRING, "null"),  # None: the response has no closed answer part
    conversion=STRING,  # what brought it to the one format, words of whichteacher.responses.CONVERSIONS; "": nothing
    finish_reason=STRING,  # "stop", "length", "prompt_too_long", "refused", or the engine's own word
    prompt_tokens=INT,
    output_tokens=INT,
    seconds=FLOAT,  # the engine's wall time shared out by output tokens; 0.0 where nobody measured it
    devices=(INT, "null"),  # GPUs (or CPU engines) that worked at the same time; None where nobody can know
    model=STRING,
    model_digest=STRING,
    engine=STRING,
    engine_version=STRING,
    hardware=STRING,
    settings=STRING,  # JSON of everything else in the store's key
)

PUBLISHED = _schema(
    query_id=STRING,
    attempt=INT,  # 0, 1, 2, ...: the answers to a query in the order of files and lines
    prompt=STRING,  # the dialogue before the response, as JSON
    text=STRING,  # the response in the project's format
    conversion=STRING,  # as in ATTEMPTS
    finish_reason=STRING,  # "stop" where the release does not say
    prompt_tokens=INT,  # of the study's tokenizer, as output_tokens
    output_tokens=INT,
    location=STRING,  # file:line
    published_score=(FLOAT, "null"),  # the publisher's own verification score
    published_perplexity=(FLOAT, "null"),
    finish_stated=BOOL,  # whether the release says how the response ended
    oddities=STRING,  # words of whichteacher.published.ODDITIES; "": none
)

INSPECTED = _schema(
    attempt_id=STRING,
    query_id=STRING,
    category=STRING,
    location=STRING,  # file:line
    published_score=(FLOAT, "null"),
    published_perplexity=(FLOAT, "null"),
    verdict=STRING,
    reason=STRING,
    output_tokens=INT,
    finish_stated=BOOL,
    faults=STRING,  # words of whichteacher.inspection.FAULTS and whichteacher.published.ODDITIES; "": none
    signs=STRING,  # words of whichteacher.inspection.SIGNS; "": none
    repeated_share=(FLOAT, "null"),  # share of the response's word 8-grams seen before in it; None: too short
    response=pa.uint64(),  # xxh3 of the normalised text
    system=STRING,  # the system message, a long one cut, with a digest of the whole
    reference=(STRING, "null"),  # where publisher and verifier disagree: their ends
    answer=(STRING, "null"),
)

LAYOUTS_FOUND = _schema(
    file=STRING,
    layout=STRING,
    why=STRING,  # what its first rows look like, and where they hold references
    rows=INT,
    unreadable=INT,
)

VERDICTS = _schema(
    attempt_id=STRING,
    query_id=STRING,
    verdict=STRING,  # pass, fail, unknown
    score=FLOAT,  # 0.0 where the verdict is unknown
    reason=STRING,
    verifier=STRING,
    verifier_version=STRING,
    evidence=STRING,  # JSON
)

CONSTRAINTS = _schema(
    query_id=STRING,
    constraints=(STRING, "null"),  # as in QUERIES; None: the judge found none that could be used
    reason=STRING,  # completed, none_found, or why the judge's words were of no use
    detail=(STRING, "null"),
)

REFERENCE_CHECKS = _schema(
    query_id=STRING,
    category=STRING,
    reference_type=(STRING, "null"),
    fit=BOOL,  # whether the reference, given as an answer, passes against itself
    reason=STRING,
    reference=STRING,
)

LABELLED_CASES = _schema(
    case_id=STRING,
    category=STRING,
    trap=STRING,  # what makes the case hard, in a word
    text=STRING,  # the response
    right=BOOL,  # the truth, by hand
    expected=STRING,  # the verdict that a careful grader would give: pass, fail, unknown
    verdict=STRING,  # the verifier's
    score=FLOAT,
    reason=STRING,
    note=STRING,  # why the truth is what it is
)

REVERIFIED = _schema(
    teacher=STRING,
    attempt_id=STRING,
    query_id=STRING,
    category=STRING,
    verdict=STRING,  # by rule, as the study has it
    score=FLOAT,
    reason=STRING,
    loaded_verdict=STRING,  # the same rule once more, under load
    loaded_score=FLOAT,
    loaded_reason=STRING,
    second=STRING,  # another way to grade, see whichteacher.verifiers.second
    second_verdict=STRING,
    second_score=FLOAT,
    second_reason=STRING,
    reference=(STRING, "null"),
    text=STRING,
)

REJUDGED = _schema(
    teacher=STRING,
    attempt_id=STRING,
    query_id=STRING,
    category=STRING,
    verifier=STRING,  # the judge that decided: judge_<name>
    verdict=STRING,
    score=FLOAT,
    reason=STRING,
    again=STRING,  # swapped_<name>: the same judge, answer before reference; second_<name>: another judge
    again_verdict=STRING,
    again_score=FLOAT,
    again_reason=STRING,
    reference=(STRING, "null"),
    text=STRING,
)

COLLECTED = _schema(
    **{field.name: (field.type, "null") if field.nullable else field.type for field in ATTEMPTS},
    **{
        field.name: (field.type, "null") if field.nullable else field.type
        for field in VERDICTS
        if field.name not in ATTEMPTS.names
    },
    accepted=BOOL,  # the first attempt of its query whose verdict is pass
)

TRACES = _schema(
    **{
        field.name: (field.type, "null") if field.nullable else field.type
        for field in QUERIES
        if field.name != "query_id"
    },
    query_id=STRING,
    attempt_id=STRING,
    teacher=STRING,
    system=STRING,
    prompt=STRING,
    thinking=STRING,
    answer=STRING,
    verify_score=FLOAT,
    attempts=INT,  # attempts drawn until this one was accepted, it included
    output_tokens=INT,
    cut_characters=INT,  # of the response, by curation.ngrams.action drop_span; what is here is what is left
    perplexity=(FLOAT, "null"),
)

RESPONSE_DIGESTS = _schema(
    query_id=STRING,
    response=STRING,  # digest of the accepted response, see find_duplicate_traces
)

DUPLICATE_TRACES = _schema(
    query_id=STRING,  # whose accepted response equals
    kept=STRING,  # that to this query, which comes before it
    response=STRING,
)

REPEATS = _schema(
    teacher=STRING,
    later_attempts=INT,  # attempts that are not the first at their query
    repeated_responses=INT,  # of these, with the response of an earlier attempt at the query
    repeated_answers=INT,  # of these, with the answer part of an earlier attempt at the query
)

PERPLEXITIES = _schema(
    attempt_id=STRING,
    query_id=STRING,
    scorer=STRING,  # its name in the configuration
    scope=STRING,  # response, query_and_response
    length=INT,  # tokens of query and response together, read or not
    tokens=INT,  # of these, the ones that count
    nll=FLOAT,  # sum of their negative log-likelihoods, in nats
    perplexity=(FLOAT, "null"),  # exp(nll / tokens)
    state=STRING,  # scored, cut, or why there is no perplexity: words of whichteacher.perplexity
)

PERPLEXITY_LIMITS = _schema(
    teacher=STRING,
    scorer=STRING,  # the first one, which filters
    threshold=(STRING, "null"),  # the configuration's words, as JSON: a number or {"quantile": share}
    limit=(FLOAT, "null"),  # traces above it are dropped; None: none are
    rows=INT,  # accepted responses
    scored=INT,  # of these, the ones with a perplexity
    above=INT,  # of these, the ones above the limit
)

TRACE_MEASURES = _schema(
    teacher=STRING,
    query_id=STRING,
    category=STRING,
    attempts=INT,
    output_tokens=INT,
    perplexity=(FLOAT, "null"),
    thinking_characters=INT,
    thinking_answer_ratio=FLOAT,  # characters of thinking per character of answer
    answer_position=(FLOAT, "null"),  # where in the thinking the reference first stands, 0 to 1; None: nowhere
    tail_characters=(INT, "null"),  # thinking after that point
    repeated_share=(FLOAT, "null"),  # share of the thinking's word 8-grams seen before in it; None: too short
    self_corrections=INT,  # words of measure_traces.SELF_CORRECTIONS in the thinking
    restarts=INT,  # sentences of the thinking that begin with a phrase of measure_traces.RESTARTS
    formula_share=(FLOAT, "null"),  # characters of formulas per character of thinking, 0 to 1; None: no thinking
    code_share=(FLOAT, "null"),  # characters of fenced code per character of thinking, 0 to 1; None: no thinking
    foreign_share=FLOAT,  # share of the letters in scripts that the query does not use
    loop_characters=INT,  # length of the loop that thinking or answer ends in; 0: in none
)

NGRAM_SKETCH = _schema(
    counters=pa.binary(),  # 2**20 counters of a shard's windows, as bit fields: see whichteacher.ngrams
)
CANDIDATE_COUNTERS = _schema(counter=INT)  # the ones whose sum over all shards is above the limit, ascending
NGRAM_TALLIES = _schema(ngram=pa.binary(), count=INT)  # the n tokens, four bytes each, the highest first; ascending
NGRAM_COUNTS = _schema(ngram=STRING, count=INT)  # the n tokens, joined by spaces

TRAINING_LOG = _schema(
    step=INT,
    epoch=FLOAT,
    loss=FLOAT,
    learning_rate=FLOAT,
    gradient_norm=(FLOAT, "null"),  # before clipping
    tokens=INT,  # seen so far, over all devices
    loss_tokens=INT,  # of them, those that carried loss
    seconds=FLOAT,  # of training so far, over all starts
)

SAMPLES = _schema(
    sample_id=STRING,  # the store's key of the row
    student=STRING,  # the path-like name of the student, "control/teacher/seed"
    benchmark=STRING,
    problem_id=STRING,
    sample=INT,
    difficulty=(INT, "null"),
    prompt=STRING,
    reference=(STRING, "null"),
    text=STRING,
    thinking=(STRING, "null"),
    answer=(STRING, "null"),
    finish_reason=STRING,
    output_tokens=INT,
    lighteval_metric=STRING,
    lighteval_score=(FLOAT, "null"),  # LightEval's own score of this sample
)

SCORED_SAMPLES = _schema(
    **{field.name: (field.type, "null") if field.nullable else field.type for field in SAMPLES},
    verdict=STRING,
    score=FLOAT,
    reason=STRING,
)
