"""Commands on a model file itself: what it gives for a file of rows, and serving it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench.commands.arguments import Json
from workbench.errors import Cancelled, MachineLacks, UsageError


def batch(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="an ONNX file")],
    input_: Annotated[Path, typer.Argument(metavar="INPUT", help="rows: .npz, .csv, .jsonl or .parquet")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="a new file, in any of these formats")],
    outputs: Annotated[list[str] | None, typer.Option(metavar="NAME", help="only this output; repeatable")] = None,
    rows: Annotated[int | None, typer.Option(min=1, metavar="N", help="rows that one run of the model takes")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="threads of the session; without as many as CPUs are allowed")
    ] = None,
    bad_rows: Annotated[
        str, typer.Option(metavar="fail|skip", help="skip: leave them out, and write down which and why")
    ] = "fail",
    fresh: Annotated[bool, typer.Option("--fresh", help="from the first row, whatever was done before")] = False,
    json: Json = False,
) -> None:
    """Score a file of rows, however large. Interrupted, the same command goes on."""
    from screens.batch import following, print_summary
    from workbench.batch.score import Job, Progress, score

    if bad_rows not in ("fail", "skip"):
        raise UsageError(f"--bad-rows {bad_rows} is not known.", "Allowed: fail, skip.")
    job = Job(model, input_, output, tuple(outputs or ()), rows, threads, skip=bad_rows == "skip", fresh=fresh)
    stopped = _stopping()
    with following(sys.stderr) as show:

        def progress(now: Progress) -> None:
            show(now)
            if stopped:
                raise Cancelled(f"Stopped after {now.rows:,} rows.", "The same command goes on there.")

        summary = score(job, progress)
    print_summary(summary, json=json)


def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="an ONNX file")],
    host: Annotated[str | None, typer.Option(help="address to listen on; 127.0.0.1 without")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="8000 without; 0 for a free one")] = None,
    grpc_port: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=65535, help="port for gRPC beside HTTP; 0 for a free one")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N|auto", help="processes with the model; auto: one per CPU; 1 without")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="threads of a session; without the CPUs of its worker")
    ] = None,
    batch_rows: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="most rows that requests are joined to; 64 without")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="where the model runs; cpu without")] = None,
) -> None:
    """The image's server, on this machine. What is no option here is set by WORKBENCH_..., as in the image."""
    import os

    from workbench.server.errors import NotHere, ServerError
    from workbench.server.serve import serve_files
    from workbench.server.settings import from_environment

    if not model.is_file():
        raise UsageError(f"There is no file {model}.", "Name an ONNX file.")
    given = {
        "HOST": host,
        "PORT": port,
        "GRPC_PORT": grpc_port,
        "WORKERS": workers,
        "THREADS": threads,
        "BATCH_ROWS": batch_rows,
        "DEVICE": device,
    }
    options = {f"WORKBENCH_{name}": str(value) for name, value in given.items() if value is not None}
    try:
        serve_files({model.stem: {"1": model}}, from_environment({**os.environ, **options}))
    except NotHere as error:
        raise MachineLacks(error.message, error.cure) from error
    except ServerError as error:
        raise UsageError(error.message, error.cure) from error


def _stopping() -> list[int]:
    """Gets the signals that ask this process to stop, instead of the process."""
    import signal

    got: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: got.append(number))
    return got
