"""`inferdctl run`: ask a model, and read the answer while it is written."""

from typing import Literal

import click

from ..options import as_json, complete_model, connect, connection

OWNER = "inferdctl run"

_EPILOG = """\b
examples:
  inferdctl run "Why is the sky blue?"         the default route
  inferdctl run qwen3 "Why is the sky blue?"
  git diff | inferdctl run qwen3 "Write a commit message for this:"
  inferdctl run qwen3 < question.txt
  inferdctl run qwen3                          a conversation; Ctrl-D ends it
  inferdctl run --schema person.json "Who wrote Faust?" | jq .name
  inferdctl run --tools tools.json --tool-choice required "Rain in Oslo?"
  inferdctl run --agent claude "Why is the sky blue?"
  inferdctl run --json "Hi" | jq -r 'select(.type == "text").delta'

One argument is the model where a route has that name, else the prompt. What is piped
in comes after the prompt.

With --agent a CLI agent answers; the model, where one is given, is what it asks for, and
--upstream a route that it runs on; see `inferdctl agent`.

--schema makes the answer JSON that fits a JSON Schema. --tools is a file with a list of
{"name", "description", "input_schema"}, or of the form that OpenAI's API takes; calls are
printed, not run.

\b
--json prints one object a line for each event, tagged by "type":
  text {delta}   thinking {delta}   tool_use {tool_call_id, name, input}
  queued {position, estimate_ms}    done {stop_reason, usage, backend}
  error {code, message}

Ctrl-C cancels the request at the daemon; the exit code is then 130.
"""


@click.command(short_help="Ask a model; the answer streams.", epilog=_EPILOG)
@click.argument("model", required=False, shell_complete=complete_model)
@click.argument("prompt", required=False)
@click.option("-s", "--system", metavar="TEXT", help="What the model is told beforehand.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 always takes the likeliest.")
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@click.option("--think/--no-think", default=None, help="Ask for reasoning, shown dim.")
@click.option("--schema", metavar="FILE", help="The answer is JSON that fits this JSON Schema.")
@click.option("--tools", metavar="FILE", help="What the model may call.")
@click.option(
    "--tool-choice",
    type=click.Choice(["auto", "required", "none"]),
    help="Whether it has to; for --tools.",
)
@click.option("--agent", metavar="NAME", help="Ask this CLI agent: codex, claude, gemini, amp.")
@click.option("--upstream", metavar="ROUTE", help="For --agent: the route that it runs on.")
@click.option("-v", "--verbose", is_flag=True, help="Tell figures of the answer on stderr.")
@as_json("Print one JSON object a line for each event.")
@connection
def command(
    model: str | None,
    prompt: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    think: bool | None,
    schema: str | None,
    tools: str | None,
    tool_choice: Literal["auto", "required", "none"] | None,
    agent: str | None,
    upstream: str | None,
    verbose: bool,
    json_: bool,
    socket: str | None,
    wait_s: float,
) -> int:
    """Ask MODEL (a route) the PROMPT and print the answer as it comes."""
    if agent is not None:
        refused = (temperature, seed, think, schema, tools, tool_choice)
        if any(value is not None for value in refused):
            raise click.UsageError("--agent takes --system, --max-tokens and --upstream alone")
        from ..agent_asking import AgentQuestion, ask_agent, find_prompt

        if prompt is None:
            model, prompt = None, model
        asked = AgentQuestion(agent, model, upstream, find_prompt(prompt), system, max_tokens)
        with connect(socket, wait_s) as client:
            return ask_agent(client, asked, OWNER, json_=json_, verbose=verbose)
    if upstream is not None:
        raise click.UsageError("--upstream is for --agent")
    from ...requests import GenerateOptions
    from ..asking import Question, converse, find_question, print_answer
    from ..json_files import read_schema, read_tools

    options = GenerateOptions(
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        thinking=think,
        queue_events=True,
    )
    if schema is not None:
        options["response_format"] = read_schema(schema)
    if tools is not None:
        options["tools"] = read_tools(tools)
    if tool_choice is not None:
        if tools is None:
            raise click.UsageError("--tool-choice is for --tools")
        options["tool_choice"] = tool_choice
    with connect(socket, wait_s) as client:
        question: Question = find_question(client, model, prompt)
        options["model"] = question.model
        if question.text is None:
            return converse(client, options, json_=json_)
        return print_answer(client, question.text, options, json_=json_, verbose=verbose)
