"""`crosstune <verb>`: parses the verb and imports the rest only then.

Errors of the user's making end as one paragraph on stderr: exit 2 for a wrong command or
configuration, 1 for failed work or faulty data. `--debug` shows the traceback.
"""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from crosstune.cli.arguments import flags_first, parse_options
from crosstune.cli.help import HELP, OTHER_HELP, TRAIN_HELP, list_groups
from crosstune.errors import ConfigError, CrosstuneError, suggest
from crosstune.startup import defer_garbage_collection


def main() -> int:
    """Run the verb of the command line and return the exit code."""
    # threads that wait for work sleep instead of spinning: where another process shares the cores,
    # a spinning thread made a training step four times as long; torch reads this when it loads
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if arguments else 2
    verb, *rest = arguments
    try:
        if verb not in VERBS:
            raise ConfigError(f"crosstune {verb}: no such verb. {suggest(verb, list(VERBS))}")
        if {"-h", "--help"} & set(rest):
            print(_help(verb))
            return 0
        return VERBS[verb](rest)
    except CrosstuneError as error:
        if debug:
            raise
        print(f"crosstune {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning makes an exit of its own of Ctrl-C
        if not isinstance(error.__context__ or error, KeyboardInterrupt):
            raise
        told = "interrupted; the same command goes on from here."
        print(f"crosstune {verb}: {told}", file=sys.stderr)
        return 130


def train(arguments: list[str]) -> int:
    """Train one run, or a sweep of runs; print the folder of each."""
    import hydra

    from crosstune.config.compose import COMPOSE_ERRORS, explain_compose_error
    from crosstune.config.paths import find_conf

    _prepare_process()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here instead of Hydra's own printing
    sweeping = not {"-m", "--multirun"}.isdisjoint(arguments)
    jobs = Jobs(sweeping)
    sys.argv = ["crosstune train", *flags_first(arguments)]
    try:
        hydra.main(config_path=str(find_conf()), config_name="train", version_base="1.3")(jobs.do)()
    except COMPOSE_ERRORS as error:
        raise explain_compose_error(error) from error
    if jobs.errors and not sweeping:
        raise jobs.errors[0]
    failed = [error.exit_code for error in jobs.errors if error.exit_code]
    if failed:  # what another process does is none of these
        print(f"crosstune train: {len(failed)} of {jobs.count} runs failed.", file=sys.stderr)
    return min(failed, default=0)


class Jobs:
    """What Hydra calls for every run: in this process, or in one that a launcher started."""

    def __init__(self, sweeping: bool):
        self.sweeping = sweeping
        self.count = 0
        self.errors: list[CrosstuneError] = []

    def do(self, config: Any) -> float | None:
        """Do a run, print its folder and return its headline score; None: it failed."""
        from hydra.core.hydra_config import HydraConfig

        from crosstune.config.compose import to_run

        _prepare_process()
        self.count += 1
        try:
            run = to_run(config, HydraConfig.get().overrides.task)
            with defer_garbage_collection() if self.count == 1 else nullcontext():
                from crosstune.sweeps.job import run_job as do_run

            folder, headline = do_run(run)
        except CrosstuneError as error:
            self._keep(error, HydraConfig.get())
            return None
        print(folder, flush=True)
        return headline

    def _keep(self, error: CrosstuneError, chosen: Any) -> None:
        """Keep an error for the end of the sweep, or raise it for another process or a search."""
        plugins = (str(chosen.launcher._target_), str(chosen.sweeper._target_))
        ours = plugins[0].endswith("BasicLauncher") and plugins[1].endswith("BasicSweeper")
        if self.sweeping and not ours:
            told = CrosstuneError(str(error))  # others of ours do not survive the way back
            told.exit_code = error.exit_code
            raise told from error
        self.errors.append(error)
        if self.sweeping:
            print(f"crosstune train: {error}", file=sys.stderr)


def _prepare_process() -> None:
    """Make this process know the schema, and tell what it does."""
    from crosstune.config.compose import register_schema
    from crosstune.logs import log_to_terminal

    register_schema()
    log_to_terminal()


def status(arguments: list[str]) -> int:
    """Print the state of a study."""
    options = parse_options(arguments, {"experiment": None, "outputs": "outputs"})
    from crosstune.sweeps.status import read_status, render_status

    found = read_status(Path(options["outputs"]), options["experiment"])
    print(render_status(options["experiment"], found))
    return 0


@defer_garbage_collection()  # looking for garbage among its records took an eighth of its time
def report(arguments: list[str]) -> int:
    """Print and write the table of a study."""
    allowed = {"experiment": None, "outputs": "outputs", "table": "", "baseline": "full"}
    allowed |= {"seeds_to_print": "5", "seeds_to_claim": "10", "wandb": ""}
    options = parse_options(arguments, allowed)
    from crosstune.config.paths import find_conf
    from crosstune.reporting.comparison import read_comparison
    from crosstune.reporting.published.layout import read_target
    from crosstune.reporting.report import ReportOptions, print_report, write_report
    from crosstune.sweeps.plan_file import find_missing, is_recipe, read_plan, unknown_study

    outputs, experiment = Path(options["outputs"]), options["experiment"]
    seeds = (options["seeds_to_print"], options["seeds_to_claim"])
    target = read_target(find_conf(), options["table"]) if options["table"] else None
    wanted = ReportOptions(read_comparison(options["baseline"], *seeds), target)
    command = " ".join(["crosstune report", *arguments])
    planned = read_plan(outputs / experiment)
    if not planned and is_recipe(experiment):
        from crosstune.sweeps.plan import plan_recipe

        planned = plan_recipe(experiment)
    elif not (outputs / experiment).is_dir():
        raise unknown_study(outputs, experiment)
    made = write_report(
        outputs, experiment, find_missing(planned, outputs / experiment), command, wanted
    )
    print_report(made)
    if mode := options["wandb"]:
        from crosstune.training.loggers import mirror_table

        mirror_table(experiment, made.tables[0].headers, made.tables[0].rows, made.folder, mode)
    return 0


def predict(arguments: list[str]) -> int:
    """Apply a finished run to a file; print where the answers are."""
    options = parse_options(arguments, {"run": None, "input": None, "output": None, "language": ""})
    from crosstune.inference.predict import predict as predict_file
    from crosstune.logs import log_to_terminal, silence_libraries

    log_to_terminal()
    run, source, target = (Path(options[name]) for name in ("run", "input", "output"))
    with silence_libraries():
        count = predict_file(run, source, target, options["language"])
    print(f"{target}: {count} items", file=sys.stderr)
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
    """Answer over HTTP until interrupted; print the address."""
    options = parse_options(arguments, {"run": None, "host": "127.0.0.1", "port": "8000"})
    if not options["port"].isdigit() or int(options["port"]) > 65535:
        raise ConfigError(f"port={options['port']}: must be a whole number from 0 to 65535.")
    try:
        from crosstune.inference.service.app import serve as serve_runs
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] not in ("fastapi", "fastapi_offline", "uvicorn"):
            raise
        raise ConfigError(
            f"{error.name} is not installed: pip install 'crosstune[serve]'"
        ) from error
    from crosstune.logs import log_to_terminal

    log_to_terminal()
    paths = [Path(path) for path in options["run"].split(",")]
    with suppress(KeyboardInterrupt):  # how it is meant to end
        serve_runs(paths, options["host"], int(options["port"]))
    return 0


def check(arguments: list[str]) -> int:
    """Examine a data set and print every fault."""
    from omegaconf import OmegaConf

    from crosstune.config.compose import compose_config, compose_run

    own = [argument for argument in arguments if argument in ("--json", "all=true")]
    overrides = [argument for argument in arguments if argument not in own]
    data = compose_config(overrides).data
    splits = [name for name in ("train", "validation", "test") if OmegaConf.is_missing(data, name)]
    run = compose_run([*overrides, *(f"data.{name}=null" for name in splits)])
    from crosstune.cli.check import examine

    report = examine(run, tokenize=any(word.startswith("model=") for word in overrides))
    print(report.as_json() if "--json" in own else report.as_text("all=true" in own))
    return 1 if report.faulty else 0


def tune(arguments: list[str]) -> int:
    """Search for every arm of a study; print what was chosen."""
    from crosstune.logs import log_to_terminal
    from crosstune.sweeps.plan import expand_overrides

    own = [word for word in arguments if word.startswith("trials=")]
    overrides = [word for word in arguments if word not in (*own, "-m", "--multirun")]
    trials = (own or ["trials=5"])[-1].removeprefix("trials=")
    if not trials.isdigit():
        raise ConfigError(f"trials={trials}: must be a whole number, at least 1.")
    jobs = expand_overrides(overrides)
    log_to_terminal()
    from crosstune.sweeps.tune import tune as tune_arms

    path, choices = tune_arms(jobs, int(trials))
    print(*(choice.told for choice in choices), path, sep="\n")
    return 0


VERBS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "tune": tune,
    "status": status,
    "report": report,
    "check": check,
    "predict": predict,
    "export": export,
    "serve": serve,
}


def _help(verb: str) -> str:
    if verb == "check":
        from crosstune.data.quality.rules import render_rules

        return OTHER_HELP[verb] + render_rules()
    if verb != "train":
        return OTHER_HELP[verb]
    return TRAIN_HELP.format(groups=list_groups()).rstrip()
