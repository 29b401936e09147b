"""One run, from its configuration to its record; reads like the methods section of a paper.

`train` is the entry point; `fit_and_record` runs on every rank. Nothing here branches on a task, a
model, a method or a language.
"""

import logging
import os
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EarlyStopping, RichProgressBar
from pytorch_lightning.strategies import DDPStrategy
from transformers import PreTrainedTokenizerBase

from crosstune.config.compose import write_config
from crosstune.config.schema import Precision, Run
from crosstune.errors import ConfigError, RunError, one_line
from crosstune.logs import log_to_file, silence_libraries
from crosstune.methods import adapt, find_tuning_method
from crosstune.models.frozen_prefix import describe_frozen_prefix
from crosstune.models.load import (
    LoadedModel,
    check_length,
    load_model,
    load_tokenizer,
)
from crosstune.models.tokenizers import digest_tokenizer
from crosstune.models.trim_vocabulary import trim_checkpoint
from crosstune.runs.fingerprint import find_stale_reasons
from crosstune.runs.locks import hold_run_lock
from crosstune.runs.record import read_record, utc_now, write_record
from crosstune.training.artifacts import (
    ADAPTER,
    digest_artifacts,
    list_base_folders,
    save_adapter_base,
    write_model,
    write_predictions,
    write_task,
)
from crosstune.training.callbacks import BestWeights, ProgressLog
from crosstune.training.checkpoint import ResumeCheckpoint, remove_checkpoint, restore_folder
from crosstune.training.cost import CostMeter, count_parameters, measure_bytes
from crosstune.training.datamodule import FineTuningData
from crosstune.training.distributed.launcher import launch_ranks
from crosstune.training.failures import explain_failure, failure_fields
from crosstune.training.learning_checks import check_learning
from crosstune.training.lightning_module import MONITOR, FineTuningModule, LossStrategy
from crosstune.training.loggers import open_loggers
from crosstune.training.prepare import Prepared, prepare
from crosstune.training.results import StageResult, format_scores, result_fields, run_facts

log = logging.getLogger(__name__)


def train(run: Run, loss_strategy: LossStrategy | None = None) -> Path:
    """Train and test one run unless it is finished already; return its folder.

    A run that was stopped resumes from its last checkpoint, with the same result.

    Raises:
        CrosstuneError: the run failed, now or before; a record says so, once the run has an id.
        RunLocked: another process works on the run.
    """
    prepared = prepare(run)
    with hold_run_lock(prepared.folder, run.lock) as lock:
        if not _is_finished(prepared):
            _prepare_folder(prepared)
            _train_or_record_failure(prepared, lock, loss_strategy)
    return prepared.folder


def _is_finished(prepared: Prepared) -> bool:
    """Return whether the run is finished.

    Raises:
        RunError: it failed before, and is not to be retried.
    """
    folder, retry = prepared.folder, prepared.run.retry
    record = read_record(folder / "record.json")
    status = record["status"]
    if status == "finished" and _is_base_gone(folder, record):
        log.warning("%s is finished, but the base of its adapter is gone: trained again", folder)
        return False
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
    if status == "unreadable" and (folder / "record.json").is_file():
        log.warning("%s/record.json: %s: trained again", folder, record["error"])
    return False


def _is_base_gone(folder: Path, record: dict[str, Any]) -> bool:
    """Return whether a run's adapter was trained on a model of this machine that is not there."""
    if "base_sha256" not in record or not (folder / "model" / ADAPTER).is_file():
        return False
    return not any(path.is_dir() for path in list_base_folders(folder))


def _prepare_folder(prepared: Prepared) -> None:
    """Restore the folder to the run's last checkpoint, or empty it."""
    folder = prepared.folder
    if read_record(folder / "record.json")["status"] == "finished" or not restore_folder(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (folder / "record.json").unlink(missing_ok=True)
    write_config(prepared.run, folder / "config.yaml")


def _train_or_record_failure(
    prepared: Prepared, lock: int, loss_strategy: LossStrategy | None
) -> None:
    """Train in this process, or in one process per device; record a failure."""
    run, folder, started = prepared.run, prepared.folder, utc_now()
    names = (run.method.name, run.model.name, run.data.name, run.data.trained_on)
    try:
        with log_to_file(folder / "log.txt"):
            log.info("%s: %s, seed %d", folder, " · ".join(names), run.seed)
            if run.trainer.devices > 1:
                launch_ranks(folder, run.trainer.devices, lock, prepared.checks)
            else:
                fit_and_record(prepared, loss_strategy)
        if not (folder / "config.yaml").is_file():
            raise FileNotFoundError(folder)
    except Exception as error:
        if not (folder / "config.yaml").is_file():
            shutil.rmtree(folder, ignore_errors=True)  # what was written since
            raise RunError(
                f"{folder}: it was deleted while the run was at work. The same command trains it "
                "again."
            ) from error
        explained = explain_failure(error, run)
        with suppress(OSError):  # no room for the record: the run resumes without it
            write_record(folder, {**run_facts(prepared, started), **failure_fields(explained)})
        raise explained from error


def fit_and_record(prepared: Prepared, loss_strategy: LossStrategy | None = None) -> None:
    """Train, choose the best checkpoint on validation, test it, write model and record."""
    run, task, folder, started = prepared.run, prepared.task, prepared.folder, utc_now()
    cache = Path(run.outputs) / ".cache"
    with silence_libraries(), open_loggers(run, prepared.run_id, folder) as loggers:
        pl.seed_everything(run.seed, verbose=False)
        tokenizer, loaded = load_checkpoint(prepared, cache)
        model = adapt(loaded, run.method, task.peft_type, run.allow)
        method = find_tuning_method(model)
        check_length(loaded.model, run.data.max_tokens, method.virtual_tokens)
        data = FineTuningData(prepared.splits, task, tokenizer, run.data, run.seed, cache)
        module = FineTuningModule(model, task, data, run, loss_strategy)
        meter, checkpoints = CostMeter(), ResumeCheckpoint(folder, run, method)
        stages, fused_with = checkpoints.stages, module.loss_strategy.fused_with
        for stage in run.data.stages[len(stages) :]:
            stages.append(fit_stage(prepared, stage, module, (checkpoints, meter), loggers))
        measured = meter.read(fused=fused_with > 0)  # writing the files is no cost of a method
        predictions = module.gather_predictions()
        checks = check_learning(prepared, stages[-1], module, predictions)
        if not module.trainer.is_global_zero:
            return
        if "test" in data.rows:
            write_predictions(predictions, module.task, folder)
        write_model(model, tokenizer, folder)
        write_task(module.task, folder)
        counts, size = count_parameters(model, loaded.head), measure_bytes(folder / "model")
        record = {
            **run_facts(prepared, started, device=meter.device_name),
            "status": "finished",
            "best_step": stages[-1].best_step,
            "tokenizer_sha256": digest_tokenizer(tokenizer),
            **digest_artifacts(model, folder),
            **result_fields(stages, data),
            **describe_frozen_prefix(model),
            **_omit_empty(fused_with=fused_with, kept_head=loaded.kept_head, **checks._asdict()),
            "cost": {**counts, **measured, "checkpoint_bytes": size},
        }
    write_record(folder, record)
    remove_checkpoint(folder)
    for warning in checks.warnings:
        log.warning("%s", warning)
    log.info("%s: finished, %s", folder, format_scores(record))


def _omit_empty(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def load_checkpoint(prepared: Prepared, cache: Path) -> tuple[PreTrainedTokenizerBase, LoadedModel]:
    """Load the tokenizer, and the model with the task's head."""
    run = prepared.run
    texts, content = prepared.tokenizer_texts()
    source = trim_checkpoint(run.model, texts, content, cache)
    tokenizer = load_tokenizer(source, texts, content, cache)
    loaded = load_model(source, prepared.task, tokenizer, run.allow)
    save_adapter_base(loaded, run, tokenizer, cache)
    return tokenizer, loaded


def fit_stage(
    prepared: Prepared,
    stage: list[str],
    module: FineTuningModule,
    run_callbacks: tuple[ResumeCheckpoint, CostMeter],
    loggers: list[Any],
) -> StageResult:
    """Train on the languages of a stage, choose the best checkpoint, test it."""
    run, data, task = prepared.run, module.data, prepared.task
    data.stage, module.task = stage, task
    checkpoints, meter = run_callbacks
    best = BestWeights(prepared.folder, MONITOR)
    callbacks = [checkpoints, best, meter, ProgressLog(), *module.method.callbacks(best)]
    trainer = build_trainer(run, prepared.folder, callbacks, loggers)
    trainer.fit(module, data)
    if (
        best.last_validation_step != trainer.global_step
    ):  # max_steps ended inside an epoch, or nothing was trained
        trainer.validate(module, data, verbose=False)
    checkpoints.finish(trainer, module)
    best.restore(trainer, module)
    module.method.finish()
    module.task = task.prepare_for_test(best.results[stage[0]].report)
    if "test" in data.rows:
        trainer.test(module, data, verbose=False)
    return StageResult(best.step, {**module.results, "validation": best.results})


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
    shows_progress = threading.current_thread() is threading.main_thread() and sys.stderr.isatty()
    if shows_progress and int(os.environ.get("LOCAL_RANK", "0")) == 0:
        callbacks.append(RichProgressBar(leave=False, console_kwargs={"stderr": True}))
    strategy: Any = options.strategy
    if strategy == "ddp" or options.devices > 1:
        # an encoder's buffers are constants; synchronising them at every forward pass would make
        # the ranks wait for each other in evaluation, where their shares differ
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
        raise ConfigError(f"trainer: {one_line(error)}") from error
