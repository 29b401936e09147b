"""A linear-chain conditional random field over the tags of a sentence's words.

Lafferty et al. 2001 (https://dl.acm.org/doi/10.5555/645530.655813). Shapes: B sequences of at most
N words with C tags.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from crosstune.data.windows import IGNORE

RATE_FACTOR = 100  # of the learning rate, for transitions


class Transitions(nn.Module):
    """Scores of a tag at the start of a sentence, after another tag, and at the end.

    At 0, where they start, the field is a softmax a word. A learning rate that suits a pretrained
    encoder hardly changes them, so it is multiplied by RATE_FACTOR; the gradient, which may be
    clipped with that of all other weights, is not.
    """

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.starts = nn.Parameter(torch.zeros(tags))
        self.pairs = nn.Parameter(torch.zeros(tags, tags))  # (before, after)
        self.ends = nn.Parameter(torch.zeros(tags))

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return starts (C,), pairs (C, C) and ends (C,), of the type of the logits."""
        # peft's wrapper of a saved module needs a forward with at least one argument
        starts, pairs, ends = (
            (weight + (RATE_FACTOR - 1) * weight.detach()).to(logits.dtype)
            for weight in (self.starts, self.pairs, self.ends)
        )
        return starts, pairs, ends


class CrfTagger(NamedTuple):
    """Everything that determines the score of a sequence of tags."""

    emissions: Tensor  # (B, N, C)
    mask: Tensor  # (B, N), true up to each sequence's length
    starts: Tensor  # (B, C), 0 where the sequence does not start a sentence
    pairs: Tensor  # (C, C)
    ends: Tensor  # (B, C), 0 where the sequence does not end a sentence


def make_chain(
    logits: Tensor, labels: Tensor, edges: Tensor, scores: tuple[Tensor, Tensor, Tensor]
) -> tuple[CrfTagger, Tensor]:
    """Return the positions that have a label, without those between them, and the labels (B, N).

    `logits` (B, L, C), `labels` (B, L), `edges` (B, 2): whether the start and the end of a
    sentence are inside.
    """
    labelled = labels != IGNORE
    lengths = labelled.sum(-1)
    order = (~labelled).int().argsort(dim=1, stable=True)[:, : max(1, int(lengths.max()))]
    mask = torch.arange(order.shape[1], device=order.device) < lengths[:, None]
    emissions = logits.gather(1, order[..., None].expand(-1, -1, logits.shape[-1]))
    starts, pairs, ends = scores
    first, last = edges[:, :1] * starts, edges[:, 1:] * ends
    return CrfTagger(emissions, mask, first, pairs, last), labels.gather(1, order)


def log_partition(chain: CrfTagger) -> Tensor:
    """Return the log of the sum of exp(score) over all sequences of tags, (B,); 0 without words."""
    total = chain.emissions[:, 0] + chain.starts
    for step in range(1, chain.mask.shape[1]):
        paths = total[:, :, None] + chain.pairs  # (B, before, after)
        moved = paths.logsumexp(1) + chain.emissions[:, step]
        total = torch.where(chain.mask[:, step, None], moved, total)
    return (total + chain.ends).logsumexp(-1) * chain.mask[:, 0]


def path_score(chain: CrfTagger, tags: Tensor) -> Tensor:
    """Return the score of one sequence of tags (B, N) each, (B,); 0 without words."""
    tags = tags * chain.mask
    scores = chain.emissions.gather(2, tags[..., None])[..., 0]
    scores = scores + pad(chain.pairs[tags[:, :-1], tags[:, 1:]], (1, 0))
    last = tags.gather(1, (chain.mask.sum(-1, keepdim=True) - 1).clamp(min=0))
    edges = chain.starts.gather(1, tags[:, :1]) + chain.ends.gather(1, last)
    return (scores * chain.mask).sum(-1) + edges[:, 0] * chain.mask[:, 0]


def best_path(chain: CrfTagger) -> Tensor:
    """Return the sequence of tags with the highest score (B, N) by Viterbi's algorithm."""
    best = chain.emissions[:, 0] + chain.starts
    pointers: list[Tensor] = []
    for step in range(1, chain.mask.shape[1]):
        reached, pointer = (best[:, :, None] + chain.pairs).max(1)
        alive = chain.mask[:, step, None]
        stay = torch.arange(best.shape[-1], device=best.device).expand_as(pointer)
        pointers.append(torch.where(alive, pointer, stay))
        best = torch.where(alive, reached + chain.emissions[:, step], best)
    tags = [(best + chain.ends).argmax(-1, keepdim=True)]
    for pointer in reversed(pointers):
        tags.append(pointer.gather(1, tags[-1]))
    return torch.cat(tags[::-1], dim=1)


def forbid(
    chain: CrfTagger, starts: Tensor, pairs: Tensor, ends: Tensor, edges: Tensor
) -> CrfTagger:
    """Return the chain without the transitions that are true: bool (C,), (C, C), (C,)."""
    penalty = -1e6  # finite, so that one path is best even if all are forbidden
    return chain._replace(
        starts=chain.starts + penalty * (starts & edges[:, :1]),
        pairs=chain.pairs + penalty * pairs,
        ends=chain.ends + penalty * (ends & edges[:, 1:]),
    )
