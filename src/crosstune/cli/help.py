"""The texts of `crosstune --help` and `crosstune <verb> --help`.

Options and rules are printed from the tables that define them.
"""

import json
import textwrap
from enum import Enum

from crosstune.config.paths import find_conf

HELP = """crosstune: compare ways of fine-tuning transformer encoders across languages.

  crosstune train [overrides]           one run; with -m a sweep over comma-separated values
  crosstune status experiment=NAME      planned, finished, failed and missing runs of a study
  crosstune forget experiment=NAME      drop what is planned and has no record
  crosstune bundle experiment=NAME output=FILE.zip  write a study as one file, for others
  crosstune verify experiment=NAME      compare a study's files with the digests in its records
  crosstune report experiment=NAME      the table of a study, from local records only
  crosstune check data=NAME [...]       examine a data set, report every fault with file:line
  crosstune tune [overrides]            search each arm's learning rate, on validation only
  crosstune predict run=DIR [...]       apply a finished run to new text
  crosstune export run=DIR output=DIR   write what plain transformers and peft load
  crosstune serve run=DIR[,DIR...]      answer over HTTP, with several adapters on one base
  crosstune <verb> --help               more about a verb
  crosstune --version                   the version
  --config-dir DIR                      also read configuration from a folder of your own
  --debug                               show the traceback of an error

Exit codes: 0 done, 1 the work failed or the data is faulty, 2 the command is wrong, 130 and 143
stopped by Ctrl-C or SIGTERM.
"""

_TRAIN = """crosstune train [-m] [overrides]

Groups (group=NAME; a folder given with --config-dir adds more):
{groups}
Your own files:
  data=files_classification data.train=F data.validation=F data.test=F
      data.text=COLUMN data.label=COLUMN data.language=es [data.text_pair=COLUMN]
  data=files_tagging data.train=F data.validation=F data.test=F data.language=es
  any split by language: 'data.test={{es: F, zh: G}}'
A later override of the same option replaces an earlier one. A value with special characters needs
quotes for the shell alone: 'data.text=文本 (1)'.
Sweep: crosstune train -m method=full,lora seed=1,2,3 …     See a run's options: --cfg job
  hydra/launcher=pool                   runs side by side, one per GPU, or hydra.launcher.jobs=N
  hydra/launcher=fused                  runs that differ in numbers alone trained in one pass
  hydra/launcher=submitit_slurm         a cluster (pip install 'crosstune[slurm]')
  hydra/sweeper=optuna                  a search (pip install 'crosstune[optuna]')

Options of every run, with their defaults, which a group's file may change (???: that file or the
command line sets it):
{options}"""

_OTHER_VERBS = {
    "status": """crosstune status experiment=NAME [outputs=outputs] [watch=true]

Planned, finished, failed and missing runs of a study, and why a run is stale. watch=true shows how
far the running ones are, until all have ended.""",
    "bundle": """crosstune bundle experiment=NAME output=FILE.zip [weights=false] [outputs=outputs]

Writes records, predictions, logged scores and the plan of a study as one file, without paths, and
without weights unless weights=true. Anywhere, crosstune report bundle=A.zip[,B.zip] makes the
report of one or of several machines' bundles, below outputs/bundles.""",
    "verify": """crosstune verify experiment=NAME [outputs=outputs]

Each finished run's record holds the SHA-256 of its configuration, weights, tokenizer, task and
predictions, and of itself. Prints every file that is missing or has changed; exit code 1 if there
is one. predict, export and serve check a run before they load it.""",
    "forget": """crosstune forget experiment=NAME [outputs=outputs]

Drops from the plan of a study the runs that have no record and are not at work, and prints their
overrides. Records and run folders stay.""",
    "report": """crosstune report experiment=NAME [outputs=outputs] [table=NAME] [baseline=full]
                 [seeds_to_print=5] [seeds_to_claim=10] [wandb=online|offline]

Prints the table of a study and writes it as Markdown, LaTeX, CSV and one HTML page to
outputs/NAME/report, with each arm's difference to the baseline, a method or an arm of the study.
table=NAME fills a printed table (conf/table) and sets the published numbers beside ours.
wandb=online sends the table to Weights & Biases too. bundle=A.zip[,B.zip] in place of experiment
reports what crosstune bundle wrote, on one or several machines.""",
    "check": """crosstune check data=NAME [overrides] [model=NAME] [all=true] [--json]

Reports every fault of a data set with file:line; exit 1 if one is an error. Splits that are
not given are not examined. model=NAME measures how many inputs its tokenizer truncates and how many
of their subwords are unknown. all=true lists every occurrence, --json prints one JSON object.
'data.allowed=[leakage,R103]' turns rules, by name or id, into notes.

Rules:
""",
    "tune": """crosstune tune experiment=NAME [trials=5] [overrides as for train -m]

Searches the learning rate of every arm of a study (all but the seeds) with the same number of
trials, half a power of ten apart around the run's own. Validation decides, the test data is never
read. Trials are runs of NAME.tuning; `crosstune train -m … tuned=true` takes the chosen values and
records them.""",
    "predict": """crosstune predict run=DIR input=FILE output=FILE [language=es]

Applies a finished run (outputs/<experiment>/<run_id>, or the folder of a study with one) to a file,
in the language that the run trained on unless another is given. Labels in the file are ignored.

Input, by the task type of the run (any file may end in .gz):
  one text per line: .txt          texts, words; in tagging, words are split at spaces, and at each
                                   character in languages written without spaces
  the run's own columns            .tsv .csv .jsonl .parquet: texts, pairs, texts with <e1> and <e2>
  one word per line                .conll .bio .tsv .conllu: the run's column of words, with or
                                   without tags
  SQuAD                            .json, with or without answers
Output: .jsonl, .tsv (texts escaped as in JSON), .parquet, and for tags .conll. One record per item:
  id, prediction, score (as in predictions.parquet), probability, probabilities of the labels or of
  each word's tag, spans with label, start and end (characters of the text), start of an answer.""",
    "export": """crosstune export run=DIR output=DIR

Writes the model of a finished run, its tokenizer and a model card (README.md) to a new folder that
plain transformers and peft load; the card says how. A peft adapter is exported as one, beside its
base model unless a model hub has that. BitFit, which peft lacks, is merged into the weights. What
plain transformers has no module for, such as a conditional random field, is refused.""",
    "serve": """crosstune serve run=DIR[,DIR...] [host=127.0.0.1] [port=8000]
                [allowed_hosts=NAME,NAME] [token_file=FILE]

Serves finished runs over HTTP. Their adapters share one base model, which is loaded once; each
request names its run. A run of full fine-tuning is served alone.
Needs: pip install 'crosstune[serve]'
  POST /predict   {"run": NAME, "language": "es", "items": [...]}; an item has text, text and
                  text_pair, words, or context and question, as its run needs, and optionally an id.
                  Answers are those of crosstune predict; of requests that are predicted together,
                  which saves time, scores differ in the last digits. Requests of more than 128
                  items, 20,000 characters per item or 1,000,000 bytes are refused. Others wait;
                  where 2,048 items wait already: 503, and Retry-After says for how many seconds.
  GET /runs       names and fields of the runs        GET /health   status and versions
  GET /metrics    counters for Prometheus             GET /openapi.json
  GET /docs       pages to try it, without outside resources
Requests must call it localhost, 127.0.0.1, [::1], by its host=, or by one of allowed_hosts.
token_file=FILE, or the environment variable CROSSTUNE_TOKEN: every request but GET /health brings
"Authorization: Bearer TOKEN". Without it a host other than 127.0.0.1 is open to anyone who can
reach it. port=0 takes a free port. The address is printed; Ctrl-C or SIGTERM ends the server when
what it is computing is answered.""",
}


def render_help(verb: str) -> str:
    """Return the help of a verb."""
    if verb == "train":
        return _TRAIN.format(groups=_list_groups(), options=_list_options())
    if verb == "check":
        from crosstune.data.quality.rules import render_rules

        return _OTHER_VERBS[verb] + render_rules()
    return _OTHER_VERBS[verb]


def _list_groups() -> str:
    return "".join(
        f"  {folder.name:10} {', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}\n"
        for folder in sorted(find_conf().iterdir())
        if folder.is_dir() and folder.name not in ("published", "table")  # facts, not choices
    )


def _list_options() -> str:
    from crosstune.config.schema import OPTIONS

    lines: list[str] = []
    for key, facts in OPTIONS.items():
        default, choices = facts.default, facts.allowed
        if isinstance(default, Enum):
            choices = tuple(member.name for member in type(default))
            default = default.name
        value = default if isinstance(default, str) else json.dumps(default)
        text = f"  {key}={value}".ljust(39) + f" {facts.sentence}"
        text += f" ({', '.join(choices)})" if choices else ""
        lines.append(textwrap.fill(text, 100, subsequent_indent=" " * 40))
    return "\n".join(lines)
