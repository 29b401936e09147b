"""The verb `serve`: finished runs over HTTP, until the process is told to end."""

import signal
from pathlib import Path

from crosstune.cli.arguments import parse_options
from crosstune.errors import ConfigError
from crosstune.startup import Terminated

OPTIONS = {
    "run": None,
    "host": "127.0.0.1",
    "port": "8000",
    "allowed_hosts": "",
    "token_file": "",
}
EXTRA = ("fastapi", "fastapi_offline", "prometheus_client", "uvicorn")  # imports of the extra


def serve(arguments: list[str]) -> int:
    """Serve finished runs over HTTP until interrupted; print the address.

    Ctrl-C is the intended way to end (0); SIGTERM ends it as orderly (143). Either lets what is
    being computed be answered.
    """
    options = parse_options(arguments, dict(OPTIONS))
    if not options["port"].isdigit() or int(options["port"]) > 65535:
        raise ConfigError(f"port={options['port']}: must be a whole number from 0 to 65535.")
    try:
        return _serve(options)
    except KeyboardInterrupt as error:
        return 128 + signal.SIGTERM if isinstance(error, Terminated) else 0


def _serve(options: dict[str, str]) -> int:
    try:
        from crosstune.inference.service.access import read_access
        from crosstune.inference.service.app import serve as serve_runs
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] not in EXTRA:
            raise
        raise ConfigError(
            f"{error.name} is not installed: pip install 'crosstune[serve]'"
        ) from error
    from crosstune.logs import log_to_terminal

    log_to_terminal()
    host, token_file = options["host"], options["token_file"]
    names = options["allowed_hosts"].split(",") if options["allowed_hosts"] else []
    access = read_access(host, names, Path(token_file) if token_file else None)
    paths = [Path(path) for path in options["run"].split(",")]
    serve_runs(paths, host, int(options["port"]), access)
    return 0
