"""One run, from its configuration to its record. It reads like the methods section of a paper.

`train` is what the command line calls; `fit_and_record` does it, on every rank. No branch here on
task, model, method or language.
"""

import logging
import os
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping, RichProgressBar
from pytorch_lightning.strategies import DDPStrategy

from crosstune.config.compose import write_config
from crosstune.config.schema import Precision, Run
from crosstune.errors import ConfigError, RunError
from crosstune.files import atomic_write
from crosstune.logs import log_to_file, silence_libraries
from crosstune.methods import adapt, callbacks_of, compact, count_virtual_tokens
from crosstune.models.frozen_prefix import describe_frozen_prefix
from crosstune.models.load import (
    check_length,
    digest_tokenizer,
    load_model,
    load_tokenizer,
    save_base_model,
)
from crosstune.runs.fingerprint import find_stale_reasons
from crosstune.runs.locks import hold_run_lock
from crosstune.runs.record import read_record, utc_now, write_record
from crosstune.training.artifacts import digest_base, write_task
from crosstune.training.callbacks import BestWeights, CostMeter, ProgressLog
from crosstune.training.checkpoint import ResumeCheckpoint, remove_checkpoint, restore_folder
from crosstune.training.cost import count_parameters, measure_bytes
from crosstune.training.datamodule import FineTuningData
from crosstune.training.distributed.launcher import RankError, launch_ranks
from crosstune.training.failures import explain_failure
from crosstune.training.lightning_module import MONITOR, Diverged, FineTuningModule, Join, by_itself
from crosstune.training.loggers import open_loggers
from crosstune.training.prepare import Prepared, prepare
from crosstune.training.record_fields import collect_results, format_scores, run_facts

log = logging.getLogger(__name__)
# what runs that share their steps cost together, which says nothing of one of them
SHARED = ("train_seconds", "train_tokens_per_second", "peak_memory_bytes")


def train(run: Run, join: Join = by_itself) -> Path:
    """Train and test one run unless it is finished already; return its folder.

    A run that was stopped goes on from its last checkpoint, as if it had not been. `join` may let
    it share its training steps with other runs, and returns with how many.

    Raises:
        CrosstuneError: the run failed, now or before; a record says so, once the run has a name.
        Busy: another process is at work on it.
    """
    prepared = prepare(run)
    with hold_run_lock(prepared.folder) as lock:
        if not _is_done(prepared):
            _make_room(prepared)
            _attempt(prepared, lock, join)
    return prepared.folder


def _is_done(prepared: Prepared) -> bool:
    """Return whether the run is finished.

    Raises:
        RunError: it failed before, and is not to be tried again.
    """
    folder, retry = prepared.folder, prepared.run.retry
    record = read_record(folder / "record.json")
    status = record["status"]
    if status == "finished":
        changes = find_stale_reasons(record)
        if changes and retry:
            return False
        log.info("%s is finished already: nothing to train", folder)
        for change in changes:
            log.warning("it is stale: %s; retry=true trains it anew", change)
        remove_checkpoint(folder)
        return True
    if status != "unreadable" and not retry:
        raise RunError(
            f"{folder} {status} before: {record.get('error')} Give retry=true to try it again."
        )
    return False


def _make_room(prepared: Prepared) -> None:
    """Bring the folder back to the run's last checkpoint, or make it empty."""
    folder = prepared.folder
    if read_record(folder / "record.json")["status"] == "finished" or not restore_folder(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (folder / "record.json").unlink(missing_ok=True)
    write_config(prepared.run, folder / "config.yaml")


def _attempt(prepared: Prepared, lock: int, join: Join) -> None:
    """Do the run in this process, or in one a device; leave a record if it fails."""
    run, folder, started = prepared.run, prepared.folder, utc_now()
    try:
        with log_to_file(folder / "log.txt"):
            log.info("%s: %s", folder, _sentence(run))
            if run.trainer.devices > 1:
                launch_ranks(folder, run.trainer.devices, lock)
            else:
                fit_and_record(prepared, join)
    except Exception as error:
        told = explain_failure(error, run)
        diverged = isinstance(told, Diverged) or (isinstance(told, RankError) and told.diverged)
        text = f"{type(told).__name__}: {told}"
        facts = {"status": "diverged" if diverged else "failed", "error": text}
        with suppress(OSError):  # a disk without room for the record: what is there goes on
            write_record(folder, {**run_facts(prepared, started), **facts})
        raise told from error


def fit_and_record(prepared: Prepared, join: Join = by_itself) -> None:
    """Train, choose the best checkpoint on validation, test it once per language, record."""
    run, task, folder, started = prepared.run, prepared.task, prepared.folder, utc_now()
    cache = Path(run.outputs) / ".cache"
    with silence_libraries(), open_loggers(run, prepared.run_id, folder) as loggers:
        pl.seed_everything(run.seed, verbose=False)
        tokenizer = load_tokenizer(run.model, *prepared.training_texts(), cache)
        loaded = load_model(run.model, task, tokenizer, run.allow)
        if run.method.peft is not None:
            save_base_model(loaded.model, run.model, tokenizer, cache)
        model = adapt(loaded, run.method, task.peft_type, run.allow)
        check_length(loaded.model, run.data.max_tokens, count_virtual_tokens(model))
        data = FineTuningData(prepared.splits, task, tokenizer, run.data, run.seed, cache)
        learner = FineTuningModule(model, task, data, run.optimizer, run.allow, run.trainer)
        sharing = join(learner)
        meter, checkpoints = CostMeter(), ResumeCheckpoint(folder, run, model)
        stages = checkpoints.stages
        for stage in run.data.stages[len(stages) :]:
            stages.append(fit_stage(prepared, stage, learner, (checkpoints, meter), loggers))
        spent = meter.read()  # what writes the files comes after, and is no part of a method
        if "test" in data.rows:
            write_predictions(learner, folder)
        if not learner.trainer.is_global_zero:
            return
        _save(learner, folder)
        counts = count_parameters(model, loaded.head, peft=run.method.peft is not None)
        record = {
            **run_facts(prepared, started),
            "status": "finished",
            "best_step": stages[-1]["best_step"],
            "tokenizer_sha256": digest_tokenizer(tokenizer),
            **digest_base(model),
            **collect_results(stages, data),
            **({"fused_with": sharing} if sharing else {}),
            **describe_frozen_prefix(model),
            "cost": {**counts, **_measured(spent, folder, sharing)},
        }
    record["environment"]["device"] = meter.device_name
    write_record(folder, record)
    remove_checkpoint(folder)
    log.info("%s: finished, %s", folder, format_scores(record))


def fit_stage(
    prepared: Prepared,
    stage: list[str],
    learner: FineTuningModule,
    lasting: tuple[ResumeCheckpoint, CostMeter],
    loggers: list[Any],
) -> dict[str, Any]:
    """Train on the languages of a stage, keep the best checkpoint, test it; return the results."""
    run, data = prepared.run, learner.data
    data.stage, learner.task = stage, prepared.task
    checkpoints, meter = lasting
    best = BestWeights(prepared.folder, MONITOR)
    callbacks = [checkpoints, best, meter, ProgressLog(), *callbacks_of(learner.model, best)]
    trainer = build_trainer(run, prepared.folder, callbacks, loggers)
    trainer.fit(learner, data)
    if best.seen != trainer.global_step:  # max_steps ended inside an epoch, or nothing was trained
        trainer.validate(learner, data, verbose=False)
    checkpoints.finish(trainer, learner)
    best.restore(trainer, learner)
    compact(learner.model)
    learner.task = prepared.task.prepare_for_test(best.results[stage[0]]["report"])
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
        callbacks.append(EarlyStopping(MONITOR, mode="max", patience=options.patience))
    watched = threading.current_thread() is threading.main_thread() and sys.stderr.isatty()
    if watched and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    strategy: Any = options.strategy
    if strategy == "ddp" or options.devices > 1:
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


def write_predictions(learner: FineTuningModule, folder: Path) -> None:
    """Write predictions.parquet: one row per test item and language, on rank 0."""
    rows = [
        {**p._asdict(), "language": language}
        for language in learner.predictions
        for p in learner.collect(language)
    ]
    if learner.trainer.is_global_zero:
        columns = ("id", "language", "gold", "prediction", "score")
        table = pa.table({column: [row[column] for row in rows] for column in columns})
        with atomic_write(folder / "predictions.parquet") as partial:
            pq.write_table(table, partial)


def _save(learner: FineTuningModule, folder: Path) -> None:
    """Write the model, its tokenizer and what the task needs to answer with it."""
    learner.model.save_pretrained(str(folder / "model"))
    learner.data.tokenizer.save_pretrained(folder / "model")
    write_task(learner.task, folder)


def _measured(spent: dict[str, float | int], folder: Path, sharing: int) -> dict[str, float | int]:
    cost = {k: v for k, v in spent.items() if not (sharing and k in SHARED)}
    return {**cost, "checkpoint_bytes": measure_bytes(folder / "model")}


def _sentence(run: Run) -> str:
    names = (run.method.name, run.model.name, run.data.name, run.data.trained_on)
    return f"{' · '.join(names)}, seed {run.seed}"
