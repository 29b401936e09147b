"""What `crosstune --help` and `crosstune <verb> --help` print.

Texts alone, so that help comes at once. Called by `cli.py`.
"""

from crosstune.config.paths import find_conf

HELP = """crosstune: compare ways of fine-tuning transformer encoders across languages.

  crosstune train [overrides]           one run; with -m a sweep over comma-separated values
  crosstune status experiment=NAME      planned, finished, failed and missing runs of a study
  crosstune report experiment=NAME      the table of a study, from local records only
  crosstune check data=NAME [...]       examine a data set, report every fault with file:line
  crosstune tune [overrides]            search each arm's learning rate, on validation only
  crosstune predict run=DIR [...]       apply a finished run to new text
  crosstune export run=DIR output=DIR   write what plain transformers and peft load
  crosstune serve run=DIR[,DIR...]      answer over HTTP, with several adapters on one base
  crosstune <verb> --help               more on a verb
  --debug                               show the traceback of an error

Exit codes: 0 done, 1 the work failed or the data is faulty, 2 the command is wrong.
"""

TRAIN_HELP = """crosstune train [-m] [overrides]

Groups (group=NAME; a folder given with --config-dir adds more):
{groups}
Every run understands:
  experiment=NAME seed=1 outputs=outputs trainer.max_epochs=3 trainer.max_steps=N
  data.batch_size=32 data.max_tokens=128 data.limit=N optimizer.learning_rate=5e-5
  data.batch_tokens=N                   sub-words a batch in place of texts: as quick, scores alike
  data.batching=bucketed                texts of like length share a batch: quicker, scores worse
  retry=true                            try again what failed, diverged or is stale
Your own files:
  data=files_classification data.train=F data.validation=F data.test=F
      data.text=COLUMN data.label=COLUMN data.language=es [data.text_pair=COLUMN]
  data=files_tagging data.train=F data.validation=F data.test=F data.language=es
  any split by language: 'data.test={{es: F, zh: G}}'
Sweep: crosstune train -m method=full,lora seed=1,2,3 …     See a run's options: --cfg job
  hydra/launcher=pool                   runs side by side, one a GPU, or hydra.launcher.jobs=N
  hydra/launcher=fused                  runs that differ in numbers alone trained in one pass
  hydra/launcher=submitit_slurm         a cluster (pip install 'crosstune[slurm]')
  hydra/sweeper=optuna                  a search (pip install 'crosstune[optuna]')
"""

OTHER_HELP = {
    "status": "crosstune status experiment=NAME [outputs=outputs]\n\nPlanned, finished, failed "
    "and missing runs of a study.",
    "report": """crosstune report experiment=NAME [outputs=outputs] [table=NAME] [baseline=full]
                 [seeds_to_print=5] [seeds_to_claim=10] [wandb=online|offline]

Prints the table of a study and writes it as Markdown, LaTeX, CSV and one HTML page to
outputs/NAME/report, with each arm's difference to the baseline, a method or an arm. table=NAME
fills a printed table (conf/table) and sets the published numbers beside ours. wandb=online sends
the table to Weights & Biases too.""",
    "check": "crosstune check data=NAME [overrides] [model=NAME] [all=true] [--json]\n\nReports "
    "every fault of a data set with file:line; exit 1 if one is an error. Splits that are\nnot "
    "given are not examined. With model=NAME the cuts and unknown pieces of its tokenizer are\n"
    "measured. all=true lists every place of a rule, --json prints one JSON object.\n"
    "'data.allowed=[leakage,R103]' makes notes of rules, by name or id.\n\nRules:\n",
    "tune": """crosstune tune experiment=NAME [trials=5] [overrides as for train -m]

Searches for every arm of a study (all but the seeds) with the same number of trials: learning rates
half a power of ten apart around the method's own, and what its `search` names. Validation decides,
the test is never opened. Trials are runs of NAME.tuning; `crosstune train -m … tuned=true` takes
what was chosen and records it.""",
    "predict": """crosstune predict run=DIR input=FILE output=FILE [language=es]

Applies a finished run (outputs/<experiment>/<run_id>, or the folder of a study with one) to a file,
in the language that the run trained on unless another is named. Labels in the file are not read.

Input, by the kind of the run (any may end in .gz):
  one text a line: .txt            texts, words; in tagging, words are parted at spaces, and at each
                                   character in languages written without
  the run's own columns            .tsv .csv .jsonl .parquet: texts, pairs, texts with <e1> and <e2>
  a word a line                    .conll .bio .tsv .conllu: the run's column of words, tags or none
  SQuAD                            .json, answers or none
Output: .jsonl, .tsv (texts escaped as in JSON), .parquet, and for tags .conll. A record an item:
  id, prediction, score (as in predictions.parquet), probability, probabilities of the labels or of
  each word's tag, spans with label, start and end (characters of the text), start of an answer.""",
    "export": """crosstune export run=DIR output=DIR

Writes the model of a finished run, its tokenizer and a model card (README.md) to a new folder that
plain transformers and peft load; the card says how. A peft adapter stays one, beside its base
model unless a model hub has that. BitFit, which peft lacks, is merged into the weights. What plain
transformers has no module for, such as a conditional random field, is refused.""",
    "serve": """crosstune serve run=DIR[,DIR...] [host=127.0.0.1] [port=8000]

Answers over HTTP with finished runs whose adapters share one base, which is held once; each request
names its run. A run of full fine-tuning is served alone. Needs: pip install 'crosstune[serve]'
  POST /predict   {"run": NAME, "language": "es", "items": [...]}; an item has text, text and
                  text_pair, words, or context and question, as its run needs, and maybe an id.
                  Answers are those of crosstune predict. Requests of more than 128 items, 20,000
                  characters an item or 1,000,000 bytes are refused.
  GET /runs       names and fields of the runs        GET /health   what works, in which versions
  GET /docs       pages to try it, with nothing from elsewhere; GET /openapi.json
There is no password: another host than 127.0.0.1 lets in whoever reaches it. port=0 takes a free
one. The address is printed; Ctrl-C ends it.""",
}


def list_groups() -> str:
    """Return the options of each group of choices, a line a group."""
    groups = [
        f"  {folder.name:10} {', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}\n"
        for folder in sorted(find_conf().iterdir())
        if folder.is_dir() and folder.name not in ("published", "table")  # facts, no choices
    ]
    return "".join(groups)
