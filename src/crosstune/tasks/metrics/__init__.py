"""Scores that torchmetrics lacks, one file a family.

Each is a torchmetrics `Metric` whose states add up or are gathered whole, so the result is the same
for any split into batches and any number of ranks; `overlap` is a function over gathered texts.
`compute()` returns plain Python numbers: `{"scores": {metric: value}, "report": {...}}`; both are
empty when nothing was counted, because what was not measured is absent, never 0. Turning logits
into predictions is the work of `tasks/`.
"""
