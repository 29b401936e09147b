"""Entry point of `crosstune`: one function per verb, which imports what it needs when it runs.

Users' errors are printed as one paragraph on stderr; `--debug` shows the traceback. Exit codes: 2
for a wrong command or configuration, 1 for failed work or faulty data.
"""

import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path

from crosstune.cli.arguments import parse_options, split_config_folder
from crosstune.cli.help import HELP, render_help
from crosstune.config.paths import use_config_folder
from crosstune.errors import ConfigError, CrosstuneError, suggest
from crosstune.printable import clean_message, count_of
from crosstune.startup import (
    Terminated,
    defer_garbage_collection,
    end_on_sigterm,
    protect_streams,
)


def main() -> int:
    """Run the verb of the command line and return the exit code."""
    # Waiting threads sleep instead of spinning: spinning made a training step take four times as
    # long where another process shares the cores. torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # where it is not UTF-8
    end_on_sigterm()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    verb, *rest = arguments or [""]
    # `status | head` may end early, but work that has begun goes on to its end
    protect_streams("stderr", *(["stdout"] if verb in ("train", "tune") else []))
    try:
        code = _run_verb(verb, rest)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # what reads the output, such as head, has ended; Python flushes once more at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except CrosstuneError as error:
        if debug:
            raise
        print(f"crosstune {verb}: {clean_message(error)}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if debug or error.filename is None:
            raise
        message = f"crosstune {verb}: {error.filename}: {error.strerror}."
        print(clean_message(message), file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit) as error:
        cause = error.__context__ or error  # Lightning turns them into a SystemExit
        if not isinstance(cause, KeyboardInterrupt):
            raise
        code = 128 + (signal.SIGTERM if isinstance(cause, Terminated) else signal.SIGINT)
        print(
            f"crosstune {verb}: interrupted; the same command goes on from here.", file=sys.stderr
        )
        return code


def _run_verb(verb: str, rest: list[str]) -> int:
    if verb in ("", "-h", "--help"):
        print(HELP, end="")
        return 0 if verb else 2
    if verb == "--version":
        print(f"crosstune {version('crosstune')}")
        return 0
    if verb not in VERBS:
        raise ConfigError(f"no such verb. {suggest(verb, list(VERBS))}")
    if {"-h", "--help"} & set(rest):
        print(render_help(verb))
        return 0
    folder, rest = split_config_folder(rest)
    use_config_folder(folder)
    return VERBS[verb](rest)


def train(arguments: list[str]) -> int:
    """Train one run, or a sweep of runs; print the folder of each."""
    from crosstune.cli.train import train as train_runs

    return train_runs(arguments)


def status(arguments: list[str]) -> int:
    """Print the state of a study."""
    allowed = {"experiment": None, "outputs": "outputs", "watch": "false"}
    options = parse_options(arguments, allowed)
    if options["watch"] not in ("true", "false"):
        raise ConfigError(f"watch={options['watch']}: must be true or false.")
    if options["watch"] == "true":
        from crosstune.sweeps.progress import watch

        watch(Path(options["outputs"]), options["experiment"])
    from crosstune.sweeps.status import read_status, render_status

    state = read_status(Path(options["outputs"]), options["experiment"])
    print(clean_message(render_status(options["experiment"], state)))
    return 0


@defer_garbage_collection()  # collecting garbage among the records took an eighth of the time
def report(arguments: list[str]) -> int:
    """Write the report of a study and print its table."""
    bundled = any(word.startswith("bundle=") for word in arguments)
    allowed = {"bundle": None} if bundled else {"experiment": None}
    allowed |= {"outputs": "outputs", "table": "", "baseline": ""}
    allowed |= {"seeds_to_print": "5", "seeds_to_claim": "10", "wandb": ""}
    options = parse_options(arguments, allowed)
    if bundled:
        options |= _unpack_bundles(options["bundle"], Path(options["outputs"]))
    from crosstune.config.paths import find_conf, find_config_files
    from crosstune.reporting.comparison import read_comparison
    from crosstune.reporting.published.layout import read_target
    from crosstune.reporting.report import ReportOptions, print_report, write_report
    from crosstune.runs.plan_file import find_missing, is_recipe, read_plan, unknown_study

    outputs, experiment = Path(options["outputs"]), options["experiment"]
    seeds = (options["seeds_to_print"], options["seeds_to_claim"])
    layout = find_config_files("table").get(options["table"], find_conf() / "table" / "of.yaml")
    target = read_target(layout.parents[1], options["table"]) if options["table"] else None
    comparison = read_comparison(options["baseline"] or "full", *seeds)
    report_options = ReportOptions(comparison, target, bool(options["baseline"]))
    command = " ".join(["crosstune report", *arguments])
    planned = read_plan(outputs / experiment)
    if not planned and is_recipe(experiment):
        from crosstune.sweeps.plan import plan_recipe

        planned = plan_recipe(experiment)
    elif not (outputs / experiment).is_dir():
        raise unknown_study(outputs, experiment)
    missing = find_missing(planned, outputs / experiment)
    written = write_report(outputs, experiment, missing, command, report_options)
    print_report(written)
    if mode := options["wandb"]:
        from crosstune.training.loggers import mirror_table

        table = written.tables[0]
        mirror_table(experiment, table.headers, table.rows, written.folder, mode)
    return 0


def _unpack_bundles(paths: str, outputs: Path) -> dict[str, str]:
    """Unpack bundles below the outputs; return the options that lead to their study."""
    from crosstune.runs.bundle import read_bundles

    root = outputs / "bundles"
    study = read_bundles([Path(path) for path in paths.split(",")], root)
    for conflict in study.conflicts:
        print(f"crosstune report: {clean_message(conflict)}", file=sys.stderr)
    return {"experiment": study.experiment, "outputs": str(root)}


def bundle(arguments: list[str]) -> int:
    """Write a study as one zip file; print its path."""
    allowed = {"experiment": None, "output": None, "outputs": "outputs", "weights": "false"}
    options = parse_options(arguments, allowed)
    if options["weights"] not in ("true", "false"):
        raise ConfigError(f"weights={options['weights']}: must be true or false.")
    from crosstune.runs.bundle import write_bundle

    target = Path(options["output"])
    with_weights = options["weights"] == "true"
    runs = write_bundle(Path(options["outputs"]), options["experiment"], target, with_weights)
    print(f"{target}: {count_of(runs, 'run')}, {target.stat().st_size:,} bytes", file=sys.stderr)
    print(target)
    return 0


def forget(arguments: list[str]) -> int:
    """Drop the planned runs of a study that have no record; print what was dropped."""
    options = parse_options(arguments, {"experiment": None, "outputs": "outputs"})
    from crosstune.runs.plan_file import forget_missing

    dropped = forget_missing(Path(options["outputs"]), options["experiment"])
    for run in dropped:
        print(clean_message(" ".join(run["overrides"])))
    print(
        f"{options['experiment']}: {count_of(len(dropped), 'planned run')} forgotten",
        file=sys.stderr,
    )
    return 0


def verify(arguments: list[str]) -> int:
    """Compare the files of a study with the digests in its records; print what is damaged."""
    options = parse_options(arguments, {"experiment": None, "outputs": "outputs"})
    from crosstune.sweeps.verify import verify_study

    result = verify_study(Path(options["outputs"]), options["experiment"])
    for fault in result.damage:
        print(clean_message(fault))
    older = f"; {count_of(result.unchecked, 'run')} of earlier versions have no digests" * (
        result.unchecked > 0
    )
    state = f"{len(result.damage)} damaged" if result.damage else "all as they were written"
    counts = f"{count_of(result.runs, 'finished run')}, {count_of(result.files, 'file')}"
    print(f"{options['experiment']}: {counts}: {state}{older}", file=sys.stderr)
    return 1 if result.damage else 0


def predict(arguments: list[str]) -> int:
    """Apply a finished run to a file; print the path of the predictions."""
    options = parse_options(arguments, {"run": None, "input": None, "output": None, "language": ""})
    from crosstune.inference.predict import predict as predict_file
    from crosstune.logs import log_to_terminal, silence_libraries

    log_to_terminal()
    run, source, target = (Path(options[name]) for name in ("run", "input", "output"))
    with silence_libraries():
        count = predict_file(run, source, target, options["language"])
    print(f"{target}: {count_of(count, 'item')}", file=sys.stderr)
    print(target)
    return 0


def export(arguments: list[str]) -> int:
    """Export a finished run; print the folder."""
    options = parse_options(arguments, {"run": None, "output": None})
    from crosstune.inference.export import export as export_run
    from crosstune.logs import silence_libraries

    with silence_libraries():
        export_run(Path(options["run"]), Path(options["output"]))
    print(options["output"])
    return 0


def serve(arguments: list[str]) -> int:
    """Serve finished runs over HTTP until interrupted; print the address."""
    from crosstune.cli.serve import serve as serve_runs

    return serve_runs(arguments)


def check(arguments: list[str]) -> int:
    """Examine a data set and print every fault."""
    from omegaconf import OmegaConf

    from crosstune.config.compose import compose_config, compose_run
    from crosstune.config.overrides import prepare_overrides

    flags = [argument for argument in arguments if argument in ("--json", "all=true")]
    overrides = prepare_overrides([word for word in arguments if word not in flags])
    data = compose_config(overrides).data
    absent = [name for name in ("train", "validation", "test") if OmegaConf.is_missing(data, name)]
    run = compose_run([*overrides, *(f"data.{name}=null" for name in absent)])
    from crosstune.cli.check import examine

    report = examine(run, tokenize=any(word.startswith("model=") for word in overrides))
    if "--json" in flags:
        print(report.as_json())
    else:
        print(clean_message(report.as_text("all=true" in flags)))
    return 1 if report.faulty else 0


def tune(arguments: list[str]) -> int:
    """Search the learning rate of every arm of a study; print the choices."""
    from crosstune.config.overrides import prepare_overrides
    from crosstune.logs import log_to_terminal
    from crosstune.sweeps.plan import expand_overrides

    budgets = [word for word in arguments if word.startswith("trials=")]
    overrides = [word for word in arguments if word not in (*budgets, "-m", "--multirun")]
    trials = (budgets or ["trials=5"])[-1].removeprefix("trials=")
    if not trials.isdigit():
        raise ConfigError(f"trials={trials}: must be a whole number, at least 1.")
    jobs = expand_overrides(prepare_overrides(overrides))
    log_to_terminal()
    from crosstune.sweeps.tune import tune as tune_arms

    path, choices = tune_arms(jobs, int(trials))
    print(*(clean_message(choice.summary) for choice in choices), path, sep="\n")
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "tune": tune,
    "status": status,
    "forget": forget,
    "verify": verify,
    "bundle": bundle,
    "report": report,
    "check": check,
    "predict": predict,
    "export": export,
    "serve": serve,
}
