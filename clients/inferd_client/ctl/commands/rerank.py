"""`inferdctl rerank`: which of some documents answer a question best."""

import sys

import click

from ..options import as_json, complete_model, connect, connection

_EPILOG = """\b
examples:
  inferdctl rerank "capital of Norway" "Oslo is a city." "Bread is baked."
  inferdctl rerank -n 3 "how to brew tea" < lines.txt
  inferdctl rerank --json "a question" "a document" | jq .results

Prints the score and the document, best first, one a line. Scores are raw: compare them
within one answer alone.
"""


@click.command(short_help="Rank documents against a question.", epilog=_EPILOG)
@click.argument("query")
@click.argument("documents", nargs=-1)
@click.option("-m", "--model", shell_complete=complete_model, help="The route to ask.")
@click.option("-n", "--top", type=click.IntRange(min=1), help="Print the best so many alone.")
@as_json("Print the whole answer, one JSON object on one line.")
@connection
def command(
    query: str,
    documents: tuple[str, ...],
    model: str | None,
    top: int | None,
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> None:
    """Rank DOCUMENTS, or the lines of standard input, by how well they answer QUERY."""
    import msgspec

    from ..render import json_line, printable

    texts = list(documents) or _lines()
    if not texts:
        raise click.UsageError("nothing to rank: give documents, or lines on standard input")
    with connect(socket, wait_s) as client:
        answer = client.rerank(query, texts, model=model, top_n=top)
    if json_:
        fields = msgspec.to_builtins(answer)
        click.echo(json_line({k: v for k, v in fields.items() if k not in ("id", "type")}))
        return
    clean = printable if sys.stdout.isatty() else str
    for ranked in answer.results:
        click.echo(f"{ranked.score:.4f}\t{clean(texts[ranked.index])}")


def _lines() -> list[str]:
    if sys.stdin.isatty():
        return []
    return [line for line in sys.stdin.read().splitlines() if line.strip()]
