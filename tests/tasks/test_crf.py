"""The conditional random field against the enumeration of every sequence of tags."""

from itertools import pairwise, product

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close
from transformers import BertConfig, BertForTokenClassification

from crosstune.data.windows import IGNORE
from crosstune.tasks.crf import (
    RATE_FACTOR,
    CrfTagger,
    Transitions,
    best_path,
    forbid,
    log_partition,
    make_chain,
    path_score,
)

LENGTHS, TAGS = (4, 1, 0, 3), 3
EDGES = torch.tensor([[True, True], [True, False], [True, True], [False, True]])


def draw_scores(seed):
    """Return logits with holes between the words, their labels, and the transitions' scores."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((len(LENGTHS), 7), IGNORE)
    for number, length in enumerate(LENGTHS):
        places = torch.randperm(7, generator=generator)[:length]
        labels[number, places] = torch.randint(TAGS, (length,), generator=generator)
    sizes = ((len(LENGTHS), 7, TAGS), (TAGS,), (TAGS, TAGS), (TAGS,))
    logits, *scores = (torch.randn(s, generator=generator, dtype=torch.double) for s in sizes)
    return logits.requires_grad_(), labels, [score.requires_grad_() for score in scores]


def chain_of(seed):
    logits, labels, scores = draw_scores(seed)
    return make_chain(logits, labels, EDGES, tuple(scores))


def every_path(seed):
    return paths_over(*draw_scores(seed))


def paths_over(logits, labels, scores):
    """Yield, for each sequence, its gold tags and the score of each possible sequence of tags."""
    starts, pairs, ends = scores
    for number in range(len(LENGTHS)):
        places = [p for p in range(7) if labels[number, p] != IGNORE]
        found = {}
        for tags in product(range(TAGS), repeat=len(places)):
            score = torch.zeros((), dtype=torch.double)
            for place, tag in zip(places, tags, strict=True):
                score = score + logits[number, place, tag]
            for before, after in pairwise(tags):
                score = score + pairs[before, after]
            if tags:
                score = score + EDGES[number, 0] * starts[tags[0]]
                score = score + EDGES[number, 1] * ends[tags[-1]]
            found[tags] = score
        yield tuple(labels[number, places].tolist()), found


@pytest.mark.parametrize("seed", range(5))
def test_the_partition_sums_over_every_sequence_of_tags(seed):
    chain, _ = chain_of(seed)
    sums = [torch.stack(list(found.values())).logsumexp(0) for _, found in every_path(seed)]
    assert_close(log_partition(chain), torch.stack(sums))


@pytest.mark.parametrize("seed", range(5))
def test_a_sequence_has_the_score_of_its_words_and_transitions(seed):
    chain, gold = chain_of(seed)
    assert_close(path_score(chain, gold), torch.stack([f[tags] for tags, f in every_path(seed)]))


@pytest.mark.parametrize("seed", range(5))
def test_the_best_path_has_the_highest_score_of_all(seed):
    chain, _ = chain_of(seed)
    best = best_path(chain)
    for number, (_, found) in enumerate(every_path(seed)):
        assert tuple(best[number, : LENGTHS[number]].tolist()) == max(found, key=found.__getitem__)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_the_enumeration(seed):
    logits, labels, scores = draw_scores(seed)
    chain, gold = make_chain(logits, labels, EDGES, tuple(scores))
    loss = (log_partition(chain) - path_score(chain, gold)).sum()
    ours = torch.autograd.grad(loss, [logits, *scores])
    total = torch.zeros((), dtype=torch.double)
    other_logits, _, other_scores = draw_scores(seed)
    for tags, found in paths_over(other_logits, labels, other_scores):
        total = total + torch.stack(list(found.values())).logsumexp(0) - found[tags]
    assert_close(ours, torch.autograd.grad(total, [other_logits, *other_scores]))


def test_the_enumeration_finds_a_forgotten_end():
    chain, _ = chain_of(0)
    planted = log_partition(chain._replace(ends=torch.zeros_like(chain.ends)))
    assert not torch.allclose(planted, log_partition(chain))


def test_without_transitions_the_field_is_a_softmax_a_word():
    logits, labels, _ = draw_scores(0)
    chain, gold = make_chain(logits, labels, EDGES, tuple(Transitions(TAGS)(logits)))
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="sum"
    )
    assert_close((log_partition(chain) - path_score(chain, gold)).sum(), each)


def test_a_sequence_without_words_has_no_loss_and_no_gradient():
    logits, labels, scores = draw_scores(0)
    nothing = torch.full_like(labels, IGNORE)
    chain, gold = make_chain(logits, nothing, EDGES, tuple(scores))
    loss = (log_partition(chain) - path_score(chain, gold)).sum()
    assert loss.item() == 0.0
    assert all(not grad.any() for grad in torch.autograd.grad(loss, [logits, *scores]))


def test_a_forbidden_transition_is_never_taken():
    chain, _ = chain_of(1)
    pairs = torch.tensor([[False, True, True], [True, False, True], [True, True, False]])
    none = torch.zeros(TAGS, dtype=torch.bool)
    free = best_path(chain)[0].tolist()
    tied = best_path(forbid(chain, none, pairs, none, EDGES))[0].tolist()
    assert len(set(free)) > 1
    assert len(set(tied)) == 1


def test_a_forbidden_start_or_end_binds_only_where_a_sentence_starts_or_ends():
    emissions = torch.tensor([[[0.0, 9.0]], [[0.0, 9.0]]])
    zero = torch.zeros(2, 2)
    chain = CrfTagger(emissions, torch.ones(2, 1, dtype=torch.bool), zero, zero, zero)
    second, none = torch.tensor([False, True]), torch.zeros(2, dtype=torch.bool)
    for edges in (torch.tensor([[True, False], [False, True]]), torch.tensor([[1, 0], [0, 0]]) > 0):
        pairs = torch.zeros(2, 2, dtype=torch.bool)
        assert best_path(forbid(chain, second, pairs, none, edges)).tolist() == [[0], [1]]
    edges = torch.tensor([[False, True], [True, False]])
    assert best_path(forbid(chain, none, pairs, second, edges)).tolist() == [[0], [1]]


def test_transitions_move_faster_than_other_weights_by_the_same_gradient():
    field = Transitions(2)
    with torch.no_grad():
        field.pairs.fill_(0.01)
    _, pairs, _ = field(torch.zeros(1, 1, 2))
    (gradient,) = torch.autograd.grad(pairs.sum(), field.pairs)
    assert_close(pairs, torch.full((2, 2), 0.01 * RATE_FACTOR))
    assert_close(gradient, torch.ones(2, 2))


# --- in a model


def tiny_model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForTokenClassification(
        BertConfig(vocab_size=20, intermediate_size=16, num_labels=TAGS, **sizes)
    )
    model.add_module("crf", Transitions(TAGS))
    return model


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")
def test_peft_trains_the_field_saves_it_and_loads_it_again(tmp_path):
    config = LoraConfig(
        task_type="TOKEN_CLS", target_modules=["query"], modules_to_save=["classifier", "crf"]
    )
    model = get_peft_model(tiny_model(), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-3)
    ids, labels = torch.arange(12).view(2, 6), torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    edges = torch.ones(2, 2, dtype=torch.bool)
    losses = []
    for _ in range(20):
        logits = model(input_ids=ids).logits
        chain, gold = make_chain(logits, labels, edges, model.crf(logits))
        loss = (log_partition(chain) - path_score(chain, gold)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_model(), tmp_path)
    trained, loaded, fresh = (m.crf(logits)[1] for m in (model, again, tiny_model()))
    assert_close(trained, loaded)
    assert not torch.allclose(trained, fresh)
