"""`inferdctl agent run`: ask a CLI agent, and read the answer while it is written."""

import click

from ..options import as_json, complete_model, connect, connection

OWNER = "inferdctl agent run"

_EPILOG = """\b
examples:
  inferdctl agent run claude --model opus "Why is the sky blue?"
  inferdctl agent run codex --upstream qwen3 < question.txt

The prompt goes to the agent's standard input, never to its command line. Ctrl-C ends the
agent's run. Without --model and --upstream the daemon's [agents.PROVIDER] table decides,
else the agent itself.
"""


@click.command(short_help="Ask an agent; the answer streams.", epilog=_EPILOG)
@click.argument("agent")
@click.argument("prompt", required=False)
@click.option("-m", "--model", metavar="NAME", help="What the agent is told to ask for.")
@click.option(
    "--upstream",
    metavar="ROUTE",
    shell_complete=complete_model,
    help="Run it on this route of the daemon.",
)
@click.option("-s", "--system", metavar="TEXT", help="What the agent is told beforehand.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer, in tokens.")
@click.option("-v", "--verbose", is_flag=True, help="Tell figures of the answer on stderr.")
@as_json("Print one JSON object a line for each event.")
@connection
def command(
    agent: str,
    prompt: str | None,
    model: str | None,
    upstream: str | None,
    system: str | None,
    max_tokens: int | None,
    verbose: bool,
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> int:
    """Ask AGENT (codex, claude, gemini or amp) the PROMPT and print the answer as it comes."""
    from ..agent_asking import AgentQuestion, ask_agent, find_prompt

    text = find_prompt(prompt)
    question = AgentQuestion(agent, model, upstream, text, system, max_tokens)
    with connect(socket, wait_s) as client:
        return ask_agent(client, question, OWNER, json_=json_, verbose=verbose)
