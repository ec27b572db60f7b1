"""Let a trained run write.

From the command line:

    python -m common.generate RUN --prompt "KING"     what follows the prompt (or each of several)
    python -m common.generate RUN                     a conversation: each line that is typed is gone on from

RUN is the folder of a run, or the name of a script: its run at default settings with seed 1; or a folder of
published GPT-2 weights.
"""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from common.errors import UserError, command, nearest
from common.generation.load import Run, load_run, locate
from common.generation.published import Published, is_published, load_gpt2
from common.generation.sampling import Sampling, start_of, stream, texts
from common.lessons.run_folder import progress
from common.parsing import parse_as


@dataclass(frozen=True)
class Arguments:
    """Let a trained run write. Without --prompt, each line that is typed is gone on from."""

    run: tyro.conf.Positional[str] = ""
    """A run folder, or an experiment (`multi_head`): its run at default settings with seed 1; or a folder of
    GPT-2 weights."""
    prompt: tuple[str, ...] | None = None
    """Text to go on from; several are gone on from together."""
    length: int = 300
    """Tokens to add at most."""
    stop: str = ""
    """End where the model writes this."""
    seed: int = 1
    """The same seed gives the same text."""
    how: Annotated[Sampling, tyro.conf.arg(name="")] = field(default_factory=Sampling)


OWN = ("length", "seed", "stop")
COMMANDS = [name.replace("_", "-") for name in (*OWN, *(f.name for f in dataclasses.fields(Sampling)))]
HELP = (
    f"/quit ends, /clear forgets what was written, /temperature 0.8 sets (so do /{', /'.join(COMMANDS)}), "
    "/temperature tells, /help says this again"
)


def banner(run: Run | Published) -> str:
    """What this is: script, parameters, vocabulary, layers, corpus, how far it was trained, and what it
    scored.
    """
    if isinstance(run, Published):
        return run.banner()
    state, s = run.state, run.settings
    facts = [
        f"{sum(p.numel() for p in run.model.parameters()):,} parameters",
        f"vocabulary {run.tokenizer.name} of {run.tokenizer.vocab_size:,}",
        *([f"{s.n_layer} layers"] if "n_layer" in run.plan.reads(state["arm"], s) else []),
        f"{progress(state)} on {state['corpus']}",
        *score_of(state),
    ]
    arm = "" if state["arm"] == "default" else f":{state['arm']}"
    said = f"{state['experiment']}{arm}, seed {state['seed']}: {' · '.join(facts)}"
    return f"{said}\n{run.plan.describe(run.model, s)}" if run.plan.describe else said


def score_of(state: dict) -> list[str]:
    """What this checkpoint itself scored: on the test text if it is of a finished run, else at the last point
    of its learning curve.
    """
    with contextlib.suppress(LookupError, TypeError, ValueError):  # it may say anything
        if "scores" in state and progress(state).endswith("steps"):
            return [f"test {state['scores']['test']['bpc']:.3f} bits per character"]
        if state["curve"]:
            step, _, _, bits = state["curve"][-1]
            return [f"validation {bits:.3f} bits per character at step {step:,}"]
    return ["not measured"]


def write(run: Run | Published, prompt: str, a: Arguments) -> str:
    """Print what follows `prompt` as it comes. Returns it."""
    parts = []
    how = dataclasses.asdict(a.how)
    for part in stream(
        run.model, run.tokenizer, run.settings.block_size, prompt, a.length, a.seed, run.device, a.stop, **how
    ):
        print(part, end="", flush=True)
        parts.append(part)
    print()
    return "".join(parts)


def whole(text: str) -> int:
    """A whole number, also as `1e3`. Raises ValueError for another."""
    number = float(text)
    if number != int(number):
        raise ValueError(text)
    return int(text) if text.strip().lstrip("+-").isdigit() else int(number)


def change(line: str, a: Arguments) -> Arguments:
    """The arguments after a line as `/temperature 0.8`; without a value, as they are. Tells the value.

    Raises UserError for what cannot be set, or not so.
    """
    name, _, value = line.removeprefix("/").partition(" ")
    name = name.strip().replace("-", "_")
    if name.replace("_", "-") not in COMMANDS:
        raise UserError(
            f"{f'/{name}'!r} is not known{nearest(name, COMMANDS)}; there are {', '.join(COMMANDS)}"
        )
    kind: Callable = str if name == "stop" else whole if name in ("length", "seed", "top_k") else float
    if not value.strip() and name != "stop":
        print(f"{name.replace('_', '-')} {told(a, name)}", file=sys.stderr)
        return a
    try:
        new: dict[str, Any] = {name: kind(value)}
    except (ValueError, OverflowError):
        asked = "a whole number" if kind is whole else "a number"
        raise UserError(f"/{name.replace('_', '-')} takes {asked}, not {value.strip()!r}") from None
    changed = (
        dataclasses.replace(a, **new)
        if name in OWN
        else dataclasses.replace(a, how=dataclasses.replace(a.how, **new))
    )
    check(changed)
    print(f"{name.replace('_', '-')} {told(changed, name)}", file=sys.stderr)
    return changed


def told(a: Arguments, name: str) -> str:
    """The value of a setting of the conversation, in words where there is none."""
    value = getattr(a if name in OWN else a.how, name)
    return "nothing" if value in (None, "") else repr(value) if isinstance(value, str) else f"{value:g}"


def check(a: Arguments) -> None:
    """Raises UserError for what cannot be meant."""
    if a.length < 1:
        raise UserError(f"--length {a.length} makes no sense; it must be at least 1")
    if not 0 <= a.seed < 2**63:
        raise UserError(f"--seed {a.seed} makes no sense; it must be at least 0 and below 2^63")
    if a.prompt is not None and "" in (a.prompt or ("",)):
        raise UserError(
            "--prompt is empty; give at least one character to go on from (--prompt=-- for one that begins "
            "with a dash), or leave --prompt out"
        )
    a.how.check()


def converse(run: Run | Published, a: Arguments) -> None:
    """Go on from each line that is typed, and from all that was written before, until `quit` or the end of
    the input.
    """
    text = ""
    print(HELP, file=sys.stderr)
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        try:
            if line.strip() in ("quit", "/quit", "/exit"):
                return
            if line.strip() == "/help":
                print(HELP, file=sys.stderr)
            elif line.strip() in ("clear", "/clear"):
                text = ""
            elif line.startswith("/"):
                a = change(line, a)
            else:
                longer = (
                    f"{text}\n{line}"
                    if text
                    else line or (start_of(run.tokenizer) if isinstance(run, Run) else "\n")
                )
                run.tokenizer.encode(longer)
                text = longer + write(run, longer, a)
        except UserError as error:  # a slip of the pen does not end the conversation
            print(f"error: {error}", file=sys.stderr)


@command
def main() -> None:
    a = parse_as(Arguments, sys.argv[1:])
    if not a.run:
        raise UserError(
            "name a run folder or an experiment: python -m common.generate multi_head --prompt KING "
            "(--help lists all flags)"
        )
    check(a)
    run = load_gpt2(Path(a.run)) if is_published(a.run) else load_run(locate(a.run))
    print(banner(run), file=sys.stderr)
    for prompt in a.prompt or ():
        run.tokenizer.encode(prompt)
    if isinstance(run, Run) and "/names_" in run.plan.experiment:
        if a.stop or a.length != Arguments.length:
            raise UserError(
                "--stop and --length do nothing for names, which end where they end; leave them out"
            )
        for prompt in a.prompt or ("",):
            print(run.sample(prompt, seed=a.seed, **dataclasses.asdict(a.how)))
    elif a.prompt is None:
        converse(run, a)
    elif len(a.prompt) == 1:
        print(a.prompt[0], end="")
        write(run, a.prompt[0], a)
    else:
        parts = (run.model, run.tokenizer, run.settings.block_size)
        print(
            "\n\n".join(
                texts(*parts, a.prompt, a.length, a.seed, run.device, a.stop, **dataclasses.asdict(a.how))
            )
        )


if __name__ == "__main__":
    main()
