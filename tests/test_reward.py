"""The reward model: ratings of a dialogue's last answer, whatever is rated beside it."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from whichteacher.engines import respond as respond_module
from whichteacher.engines.respond import Request, respond
from whichteacher.engines.reward import RATINGS, RewardEngine
from whichteacher.engines.specs import RewardSpec
from whichteacher.rule import InputError

#: A class as a model's own files define it: a head with a bias, which transformers' class for Llama has not.
OWN_CLASS = """
from torch import nn
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class RatedLlama(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=True)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        states = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.score(states[:, -1]))
"""
DIALOGUES = [
    [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": answer}]
    for answer in ("Blue.", "Red, as in rust, in brick and in wine.", "I would rather not say.", "é" * 20)
]
DIALOGUES.append([{"role": "system", "content": "Be kind."}, *DIALOGUES[1], *DIALOGUES[0]])
REQUESTS = {f"{number:064d}": json.dumps(dialogue) for number, dialogue in enumerate(DIALOGUES)}


@pytest.fixture
def rater(tiny_model, tmp_path):
    """A function that makes the folder of a small Llama with a head of random weights; ``changed`` goes into its configuration."""

    def make(name: str = "rater", labels: int = 5, **changed):
        folder = tmp_path / name
        shutil.copytree(tiny_model, folder)
        config = LlamaConfig.from_pretrained(tiny_model, num_labels=labels, initializer_range=0.3, **changed)
        torch.manual_seed(1)
        LlamaForSequenceClassification(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def own_class(rater, tmp_path, monkeypatch):
    """The folder of a reward model with a class of its own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = rater("own_class")
    (folder / "modeling_rated.py").write_text(OWN_CLASS)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "architectures": ["RatedLlama"],
        "auto_map": {"AutoModelForSequenceClassification": "modeling_rated.RatedLlama"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors") | {"score.bias": torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def spec_of(folder, **changed) -> RewardSpec:
    return RewardSpec(**{"model": str(folder), "revision": None, "dtype": "float32", "max_model_len": 512} | changed)


def ratings_of(folder, requests=REQUESTS, **changed) -> dict[str, dict[str, float]]:
    completions = list(RewardEngine(spec_of(folder, **changed)).run(requests))
    assert {completion.finish_reason for completion in completions} == {"stop"}
    return {completion.key: json.loads(completion.text) for completion in completions}


def logits_of(folder, dialogue, **loading) -> list[float]:
    """What a forward pass of transformers' own says of one dialogue."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32", **loading).eval()
    ids = tokenizer(tokenizer.apply_chat_template(dialogue, tokenize=False), return_tensors="pt").input_ids
    with torch.inference_mode():
        return model(ids).logits[0].tolist()


def test_the_ratings_are_those_of_a_forward_pass_of_the_dialogue_alone(rater):
    folder = rater()
    ratings = ratings_of(folder)
    for rated, dialogue in zip(ratings.values(), DIALOGUES, strict=True):
        assert list(rated) == list(RATINGS)
        assert list(rated.values()) == pytest.approx(logits_of(folder, dialogue), abs=1e-4)
    assert len({json.dumps(rated) for rated in ratings.values()}) == len(DIALOGUES)


def test_a_class_of_the_models_own_is_run_where_it_is_trusted(own_class):
    ratings = ratings_of(own_class, trust_remote_code=True)
    for rated, dialogue in zip(ratings.values(), DIALOGUES, strict=True):
        assert list(rated.values()) == pytest.approx(logits_of(own_class, dialogue, trust_remote_code=True), abs=1e-4)
    # The class of transformers would leave out the bias, and rate all the same.
    with pytest.raises(InputError, match=r"score\.bias.*set trust_remote_code"):
        RewardEngine(spec_of(own_class))


def test_a_dialogue_is_rated_the_same_whatever_is_rated_beside_it(rater):
    folder = rater(dtype="bfloat16")
    together = ratings_of(folder, dtype="bfloat16")
    assert ratings_of(folder, dict(reversed(REQUESTS.items())), dtype="bfloat16") == together
    for key, dialogue in REQUESTS.items():
        assert ratings_of(folder, {key: dialogue}, dtype="bfloat16") == {key: together[key]}


def test_the_last_token_counts_also_where_it_is_the_padding_token(rater):
    """Llama ends its turns with what many reward models pad with; transformers' class would take an earlier token."""
    folder = rater()
    ratings, logits = ratings_of(folder), logits_of(folder, DIALOGUES[0])
    config = json.loads((folder / "config.json").read_text())
    config["pad_token_id"] = AutoTokenizer.from_pretrained(folder).encode("\n", add_special_tokens=False)[-1]
    (folder / "config.json").write_text(json.dumps(config))
    assert ratings_of(folder) == ratings
    assert logits_of(folder, DIALOGUES[0]) != pytest.approx(logits, abs=1e-2)


def test_a_dialogue_is_never_cut(rater):
    folder = rater()
    lengths = {completion.key: completion.prompt_tokens for completion in RewardEngine(spec_of(folder)).run(REQUESTS)}
    longest = max(lengths.values())
    for limit, reason in ((longest, "stop"), (longest - 1, "prompt_too_long")):
        completions = {c.key: c for c in RewardEngine(spec_of(folder, max_model_len=limit)).run(REQUESTS)}
        of_longest = [completions[key] for key, length in lengths.items() if length == longest]
        assert {(c.finish_reason, c.prompt_tokens, bool(c.text)) for c in of_longest} == {
            (reason, longest, reason == "stop")
        }
        assert {c.finish_reason for c in completions.values() if c not in of_longest} == {"stop"}


def test_ratings_have_the_names_that_the_model_gives_them(rater):
    names = ["correctness", "helpfulness", "safety", "coherence"]
    folder = rater(id2label=dict(enumerate(names)), labels=4)
    rated = ratings_of(folder)[min(REQUESTS)]
    assert list(rated) == names
    assert list(rated.values()) == pytest.approx(logits_of(folder, DIALOGUES[0]), abs=1e-4)


@pytest.mark.parametrize(
    ("labels", "id2label", "told"),
    [
        (4, None, "gives 4 ratings"),
        (1, None, "gives 1 ratings"),
        (3, {0: "helpfulness", 1: "correctness", 2: "safety"}, "gives 3 ratings, helpfulness, correctness, safety"),
    ],
)
def test_other_ratings_than_are_scored_are_told_before_anything_is_rated(rater, labels, id2label, told):
    folder = rater(labels=labels, **({"id2label": id2label} if id2label else {}))
    with pytest.raises(InputError, match=told):
        RewardEngine(spec_of(folder))


def test_a_model_that_cannot_rate_is_one_line(tiny_model, rater, tmp_path):
    with pytest.raises(InputError, match=r"do not fit its class LlamaForSequenceClassification \(score\.weight\)"):
        RewardEngine(spec_of(tiny_model))
    with pytest.raises(InputError, match="cannot be loaded"):
        RewardEngine(spec_of(tmp_path))
    folder = rater()
    with pytest.raises(InputError, match="reads 1024 tokens: lower max_model_len"):
        RewardEngine(spec_of(folder, max_model_len=1025))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template"):
        RewardEngine(spec_of(folder))


def test_what_cannot_be_rated_does_not_stop_the_rest(rater):
    folder = rater()
    strict = (folder / "chat_template.jinja").read_text()
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + strict
    (folder / "chat_template.jinja").write_text(strict)
    reasons = [completion.finish_reason for completion in RewardEngine(spec_of(folder)).run(REQUESTS)]
    assert reasons == ["stop"] * 4 + ["not_rendered"]

    weights = load_file(folder / "model.safetensors")
    weights["score.weight"][2, 0] = math.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    completions = list(RewardEngine(spec_of(folder)).run(REQUESTS))
    assert [(completion.finish_reason, completion.text) for completion in completions[:4]] == [("not_finite", "")] * 4


def test_code_is_of_the_commit_of_the_weights(monkeypatch):
    asked = []

    def load(_, **settings):
        asked.append(settings)
        raise OSError("no hub here")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **settings: asked.append(settings))
    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", load)
    with pytest.raises(InputError, match="no hub here"):
        RewardEngine(spec_of("org/rater", revision="a" * 40, trust_remote_code=True))
    assert len(asked) == 2
    assert all(settings["revision"] == settings["code_revision"] == "a" * 40 for settings in asked)


def test_ratings_are_stored_and_no_model_is_loaded_for_them_again(rater, tmp_path, monkeypatch):
    spec = spec_of(rater(), max_model_len=100)
    requests = [Request(dialogue, 0) for dialogue in REQUESTS.values()]
    rated = respond(requests, spec, tmp_path / "store", "test")
    assert [response.finish_reason for response in rated] == ["stop"] * 4 + ["prompt_too_long"]
    assert [json.loads(response.text) for response in rated[:4]] == list(ratings_of(spec.model).values())[:4]
    # Time is shared by the tokens read: a model that rates generates none.
    assert {response.output_tokens for response in rated} == {0}
    pace = [response.seconds / response.prompt_tokens for response in rated[:4]]
    assert min(pace) > 0 and pace == pytest.approx([pace[0]] * 4)
    assert rated[4].seconds == 0
    monkeypatch.setattr(respond_module, "_start", lambda _: pytest.fail("a model was loaded for stored ratings"))
    assert respond(requests, spec, tmp_path / "store", "test") == rated


def test_whatever_changes_ratings_changes_the_key(own_class):
    spec = spec_of(own_class)
    owners = [spec.owner()]
    for name in ("modeling_rated.py", "chat_template.jinja", "config.json"):
        (own_class / name).write_text((own_class / name).read_text() + "\n")
        owners.append(spec.owner())
    assert len(set(owners)) == 4
    changes = ({"dtype": "bfloat16"}, {"max_model_len": 100}, {"trust_remote_code": True})
    settings = [spec.settings(), *(spec_of(own_class, **change).settings() for change in changes)]
    assert len({json.dumps(told) for told in settings}) == 4
    assert spec_of("org/rater", revision="a" * 40).owner() != spec_of("org/rater", revision="b" * 40).owner()
