"""The ``loraland`` command. Only the options are here; each command's work is imported when asked."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

P = ParamSpec("P")

app = typer.Typer(
    help="Fine-tune LoRA adapters with kubectl and serve them over gRPC, on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def answering(command: Callable[P, None]) -> Callable[P, None]:
    """Let a command's expected failures end in a sentence."""

    @functools.wraps(command)
    def answered(*args: P.args, **kwargs: P.kwargs) -> None:
        from loraland_cli import console  # noqa: PLC0415 (imported when a command runs)

        with console.failures_as_sentences():
            command(*args, **kwargs)

    return answered


State = Annotated[
    Path | None,
    typer.Option(
        help="The stack's directory; LORALAND_STATE or ./.loraland if not given.",
        show_default=False,
    ),
]


@app.command()
@answering
def up(
    state: State = None,
    api_port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.")] = 0,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC server; 0 takes 8500.")] = 0,
) -> None:
    """Start the stack, wait until it is ready, and leave it running."""
    from loraland_cli import stack  # noqa: PLC0415 (the help is quick because nothing is imported)

    stack.up(state, api_port=api_port, grpc_port=grpc_port)


@app.command()
@answering
def down(
    state: State = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the directory as well.")] = False,
) -> None:
    """Stop the stack; what it holds stays in its directory."""
    from loraland_cli import stack  # noqa: PLC0415

    stack.down(state, purge=purge)


@app.command()
@answering
def status(state: State = None) -> None:
    """Show the stack's stations, and what to type next."""
    from loraland_cli import stack  # noqa: PLC0415

    stack.status(state)


@app.command()
@answering
def logs(
    name: Annotated[
        str | None, typer.Argument(help="A station, or a pod as NAME or NAMESPACE/NAME.")
    ] = None,
    state: State = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines of each log.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
) -> None:
    """Show the end of a station's or a pod's log; of all stations if none is named."""
    from loraland_cli import stack  # noqa: PLC0415

    stack.logs(state, name, num_lines=lines, follow=follow)


@app.command()
@answering
def generate(  # noqa: PLR0917 (typer passes them by name)
    prompt: Annotated[
        str | None, typer.Argument(help="The prompt, sent to the model as it is.")
    ] = None,
    adapter: Annotated[
        str, typer.Option("--adapter", "-a", help="NAME or NAMESPACE/NAME; none: the base model.")
    ] = "",
    field: Annotated[
        list[str] | None,
        typer.Option(
            "--field", "-f", metavar="KEY=VALUE", help="A value for the adapter's own template."
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer; 0 takes the default.")] = 0,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Only the likeliest tokens of this share.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="Draw the same again.")] = None,
    json_schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The answer is JSON of this schema.")
    ] = None,
    regex: Annotated[str | None, typer.Option(help="The answer matches this.")] = None,
    choice: Annotated[
        list[str] | None, typer.Option(help="The answer is one of these; give several.")
    ] = None,
    state: State = None,
) -> None:
    """Ask an adapter or the base model; the answer is printed while it is made."""
    from loraland_cli import generate as generation  # noqa: PLC0415

    generation.run(
        state,
        prompt=prompt,
        adapter=adapter,
        fields=field or [],
        options={
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "json_schema": generation.read_schema(json_schema),
            "regex": regex,
            "choice": choice or None,
        },
    )


@app.command()
@answering
def train(  # noqa: PLR0917 (typer passes them by name)
    job: Annotated[Path, typer.Argument(help="A FineTuneJob in YAML, as kubectl applies it.")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A folder, or s3://bucket/prefix.")
    ] = "loraland-adapters",
    catalogue: Annotated[
        Path | None,
        typer.Option(help="Base models; LORALAND_CATALOGUE or the laptop's if not given."),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="CLAIM=FOLDER", help="A folder for a PersistentVolumeClaim."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the summary to this file.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Forget the result and the checkpoints of this job.")
    ] = False,
) -> None:
    """Train a job's adapter in this process, without a cluster; ends with a pod's exit codes.

    Interrupted, it saves a checkpoint; the same command goes on from there.
    """
    from loraland_cli import train as training  # noqa: PLC0415

    training.run(
        job,
        training.Options(
            output=output,
            catalogue=catalogue,
            volumes=tuple(volume or ()),
            json_file=json_file,
            again=again,
        ),
    )


@app.command()
@answering
def sweep(
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove it; without this it is only shown.")
    ] = False,
    state: State = None,
) -> None:
    """Show what the artifact store holds and nobody needs any more."""
    from loraland_cli import sweep as sweeping  # noqa: PLC0415

    sweeping.run(state, remove=remove)


@app.command()
@answering
def compare(
    job: Annotated[str, typer.Argument(help="A finished FineTuneJob with inline held-out rows.")],
    adapter: Annotated[
        str, typer.Option("--adapter", "-a", help="Instead of the job's own adapter.")
    ] = "",
    state: State = None,
) -> None:
    """Ask base model and adapter the same held-out questions; fails if the adapter is no better."""
    from loraland_cli.demo import story  # noqa: PLC0415

    story.compare(state, job, adapter=adapter)


@app.command()
@answering
def demo(
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write scores and times to this file.")
    ] = None,
    job: Annotated[
        Path | None, typer.Option(help="File or folder to apply instead of the quickstart.")
    ] = None,
    state: Annotated[Path, typer.Option(help="Directory of the demo's own stack.")] = Path(
        ".loraland/demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running.")] = False,
) -> None:
    """From kubectl apply to a gRPC answer, and everything torn down again."""
    from loraland_cli.demo import story  # noqa: PLC0415

    story.run(state, job=job, json_file=json_file, keep=keep)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
        "allow_interspersed_args": False,
    }
)
@answering
def kubectl(context: typer.Context) -> None:
    """Run kubectl against the stack of LORALAND_STATE or ./.loraland."""
    from loraland_cli import stack  # noqa: PLC0415

    stack.kubectl(context.args)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
