"""`inferdctl embed`: texts to vectors."""

import sys

import click

from ..options import as_json, complete_model, connect, connection

_SHOWN = 6
"""Numbers of a vector that a terminal shows."""

_TASKS = (
    "retrieval_query",
    "retrieval_document",
    "similarity",
    "classification",
    "clustering",
    "question_answering",
    "fact_verification",
    "code_retrieval_query",
)

_EPILOG = """\b
examples:
  inferdctl embed "a text" "another"
  inferdctl embed --task retrieval_document < lines.txt > vectors.jsonl
  inferdctl embed --model nomic --json "a text" | jq .usage

Prints one vector a line, a JSON array, in the order of the texts. A terminal shows
the first numbers alone.
"""


@click.command(short_help="Turn texts into vectors.", epilog=_EPILOG)
@click.argument("texts", nargs=-1)
@click.option("-m", "--model", shell_complete=complete_model, help="The route to ask.")
@click.option("--dimensions", type=click.IntRange(min=1), help="Cut the vectors to this length.")
@click.option("--task", type=click.Choice(_TASKS), help="What the vectors are for.")
@as_json("Print the whole answer, one JSON object on one line.")
@connection
def command(
    texts: tuple[str, ...],
    model: str | None,
    dimensions: int | None,
    task: str | None,
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> None:
    """Turn TEXTS, or the lines of standard input, into vectors."""
    import msgspec

    from ..render import json_line

    inputs = list(texts) or _lines()
    if not inputs:
        raise click.UsageError("nothing to embed: give texts, or lines on standard input")
    with connect(socket, wait_s) as client:
        answer = client.embed(inputs, model=model, dimensions=dimensions, task=task)  # type: ignore[arg-type]
    if json_:
        fields = msgspec.to_builtins(answer)
        click.echo(json_line({k: v for k, v in fields.items() if k not in ("id", "type")}))
        return
    shorten = sys.stdout.isatty()
    for vector in answer.embeddings:
        if shorten:
            numbers = ", ".join(f"{x:.4g}" for x in vector[:_SHOWN])
            more = ", …" if len(vector) > _SHOWN else ""
            click.echo(f"[{numbers}{more}]  ({len(vector)} numbers)")
        else:
            click.echo(json_line(vector))


def _lines() -> list[str]:
    if sys.stdin.isatty():
        return []
    return [line for line in sys.stdin.read().splitlines() if line.strip()]
