"""One run, from its configuration to its record. It reads like the methods section of a paper.

`train` is what the command line calls; `work` does it, on every rank. No branch here on task,
model, method or language.
"""

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping, RichProgressBar
from pytorch_lightning.strategies import DDPStrategy

from crosstune.callbacks import CostMeter, KeepBest, Tell
from crosstune.config import to_plain, write_run
from crosstune.cost import count_parameters, measure_bytes
from crosstune.data.module import LanguageData
from crosstune.data.splits import digests_of
from crosstune.errors import ConfigError
from crosstune.identity import digest_languages, digest_weights
from crosstune.learner import HEADLINE, Diverged, Learner
from crosstune.methods import adapt, callbacks_of, compact, count_places
from crosstune.models import (
    check_length,
    digest_tokenizer,
    keep_base,
    load_model,
    load_tokenizer,
)
from crosstune.prepare import Prepared, prepare
from crosstune.ranks import fan_out
from crosstune.record import describe_environment, now, read_record, write_record
from crosstune.saved import digest_base, write_task
from crosstune.schema import Precision, Run
from crosstune.telling import quiet, tell_file
from crosstune.tracking import open_loggers

log = logging.getLogger(__name__)


def train(run: Run) -> Path:
    """Train and test one run unless it is finished already; return its folder.

    Raises:
        CrosstuneError: the run failed; a record says so, once the run has a name.
    """
    prepared = prepare(run)
    folder = prepared.folder
    if read_record(folder / "record.json").get("status") == "finished":
        log.info("%s is finished already: nothing to train", folder)
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # what a failed or killed attempt left
    folder.mkdir(parents=True)
    write_run(prepared.run, folder / "config.yaml")
    started = now()
    try:
        with tell_file(folder / "log.txt"):
            log.info("%s: %s", folder, _sentence(prepared.run))
            if run.trainer.devices > 1:
                fan_out(folder, run.trainer.devices)
            else:
                work(prepared)
    except Exception as error:
        status = "diverged" if isinstance(error, Diverged) else "failed"
        text = f"{type(error).__name__}: {error}"
        write_record(folder, {**_facts(prepared, started), "status": status, "error": text})
        raise
    return folder


def work(prepared: Prepared) -> None:
    """Train, choose the best checkpoint on validation, test it once per language, record."""
    run, task, folder, started = prepared.run, prepared.task, prepared.folder, now()
    cache = Path(run.outputs) / ".cache"
    with quiet(), open_loggers(run, prepared.run_id, folder) as loggers:
        pl.seed_everything(run.seed, verbose=False)
        texts, content = prepared.training_texts()
        tokenizer = load_tokenizer(run.model, texts, content, cache)
        loaded = load_model(run.model, task, tokenizer, run.allow)
        if run.method.peft is not None:
            keep_base(loaded.model, run.model, tokenizer, cache)
        model = adapt(loaded, run.method, task.peft_type, run.allow)
        check_length(loaded.model, run.data.max_tokens, count_places(model))
        data = LanguageData(prepared.splits, task, tokenizer, run.data, run.seed, cache)
        learner = Learner(
            model, task, data, run.optimizer, run.allow, run.trainer.log_every_n_steps
        )
        meter = CostMeter()
        stages = [fit_stage(prepared, stage, learner, meter, loggers) for stage in run.data.stages]
        if "test" in data.rows:
            write_predictions(learner, folder)
        if not learner.trainer.is_global_zero:
            return
        model.save_pretrained(str(folder / "model"))
        tokenizer.save_pretrained(folder / "model")
        write_task(learner.task, folder)
        counts = count_parameters(model, loaded.head, peft=run.method.peft is not None)
        record = {
            **_facts(prepared, started),
            "status": "finished",
            "best_step": stages[-1]["best_step"],
            "tokenizer_sha256": digest_tokenizer(tokenizer),
            **digest_base(model),
            **_results(stages, data),
            "cost": {**counts, **meter.read(), "checkpoint_bytes": measure_bytes(folder / "model")},
        }
    record["environment"]["device"] = meter.device_name
    write_record(folder, record)
    log.info("%s: finished, %s", folder, _scores_in_words(record))


def fit_stage(
    prepared: Prepared, stage: list[str], learner: Learner, meter: CostMeter, loggers: list[Any]
) -> dict[str, Any]:
    """Train on the languages of a stage, keep the best checkpoint, test it; return the results."""
    run, data = prepared.run, learner.data
    data.stage, learner.task = stage, prepared.task
    best = KeepBest(prepared.folder, HEADLINE)
    callbacks = [best, meter, Tell(), *callbacks_of(learner.model, best)]
    trainer = build_trainer(run, prepared.folder, callbacks, loggers)
    trainer.fit(learner, data)
    if best.seen != trainer.global_step:  # max_steps ended inside an epoch, or nothing was trained
        trainer.validate(learner, data, verbose=False)
    best.restore(trainer, learner)
    compact(learner.model)
    learner.task = prepared.task.tuned(best.results[stage[0]]["report"])
    if "test" in data.rows:
        trainer.test(learner, data, verbose=False)
    return {"best_step": best.step, "results": {**learner.results, "validation": best.results}}


def build_trainer(
    run: Run, folder: Path, callbacks: list[pl.Callback], loggers: list[Any]
) -> pl.Trainer:
    """Return Lightning's trainer for the run.

    Raises:
        ConfigError: the machine lacks what the trainer options ask for.
    """
    options = run.trainer
    if options.patience is not None:
        callbacks.append(EarlyStopping(HEADLINE, mode="max", patience=options.patience))
    if sys.stderr.isatty() and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    strategy: Any = options.strategy
    if strategy == "ddp":
        # an encoder's buffers are constants; sending them round at every forward pass would tie
        # the ranks together in evaluation, where their shares differ
        strategy = DDPStrategy(forward_sync_buffers=False)
    try:
        return pl.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            strategy=strategy,
            precision="bf16-mixed" if options.precision is Precision.bf16 else "32-true",
            max_epochs=options.max_epochs,
            max_steps=options.max_steps or -1,
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.gradient_clip_val,
            log_every_n_steps=options.log_every_n_steps,
            callbacks=callbacks,
            logger=loggers,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(c, RichProgressBar) for c in callbacks),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def write_predictions(learner: Learner, folder: Path) -> None:
    """Write predictions.parquet: one row per test item and language, on rank 0."""
    rows = [
        {**p._asdict(), "language": language}
        for language in learner.predictions
        for p in learner.collect(language)
    ]
    if learner.trainer.is_global_zero:
        columns = ("id", "language", "gold", "prediction", "score")
        table = pa.table({column: [row[column] for row in rows] for column in columns})
        pq.write_table(table, folder / "predictions.parquet")


def _facts(prepared: Prepared, started: str) -> dict[str, Any]:
    run = prepared.run
    return {
        "run_id": prepared.run_id,
        "experiment": run.experiment,
        "seed": run.seed,
        "data": run.data.name,
        "model": run.model.name,
        "method": run.method.name,
        "train_language": run.data.trained_on,
        "headline": {"split": "validation", "metric": run.data.metric},
        "unseen_labels": prepared.unseen,
        "leakage": prepared.leakage,
        "data_sha256": digests_of(prepared.splits),
        "model_sha256": digest_weights(run.model),
        "language_adapters_sha256": digest_languages(run.method),
        "environment": describe_environment(torch.get_num_threads()),
        "started": started,
        "finished": now(),
        "config": to_plain(run),
        **({"tuning": prepared.tuning} if prepared.tuning else {}),
    }


def _results(stages: list[dict[str, Any]], data: LanguageData) -> dict[str, Any]:
    found = {
        part: [
            {
                split: {language: result[part] for language, result in languages.items()}
                for split, languages in results.items()
            }
            for results in (stage["results"] for stage in stages)
        ]
        for part in ("scores", "report")
    }
    cut = {
        f"{split}/{language}": int(encoded.cut[0])
        for split, languages in data.encoded.items()
        for language, encoded in languages.items()
        if encoded.cut[0]
    }
    after = [
        {"languages": languages, "scores": scores}
        for languages, scores in zip(data.data.stages, found["scores"], strict=True)
    ]
    return {
        "scores": found["scores"][-1],
        "report": found["report"][-1],
        "truncated": cut,
        **({"stages": after} if len(after) > 1 else {}),
    }


def _sentence(run: Run) -> str:
    names = (run.method.name, run.model.name, run.data.name, run.data.trained_on)
    return f"{' · '.join(names)}, seed {run.seed}"


def _scores_in_words(record: dict[str, Any]) -> str:
    metric = record["headline"]["metric"]
    found = record["scores"].get("test") or record["scores"]["validation"]
    return ", ".join(
        f"{language} {metric} {scores[metric]:.3f}" for language, scores in found.items()
    )
