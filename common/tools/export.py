"""Write a trained run in a form that other software reads.

From the command line:

    python -m common.tools.export RUN --format hf      a folder for AutoModelForCausalLM and AutoTokenizer
    python -m common.tools.export RUN --format gguf    one file, for llama.cpp and what is built on it

RUN is the folder of a run, or the name of a script: its run at default settings with seed 1.
"""

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from safetensors.torch import save_file

from common.data.tokenizer import Tokenizer
from common.errors import UserError, command
from common.generation.load import Run, load_run, locate
from common.parsing import parse_as
from common.tools.forms import Form, form_of
from common.tools.gguf_file import write_gguf
from common.tools.tokenizer_files import as_hf, config_of


@dataclass(frozen=True)
class Arguments:
    """Write a trained run in a form that other software reads."""

    run: tyro.conf.Positional[str] = ""
    """A run folder, or an experiment: its run at default settings with seed 1."""
    format: Literal["hf", "gguf"] = "hf"
    """hf: a folder that the transformers library loads. gguf: one file (needs the package `gguf`)."""
    out: Path | None = None
    """The folder to write (none given: `hf` or `gguf` in the run folder). It must not exist, or be empty."""


def write_hf(form: Form, tokenizer: Tokenizer, block_size: int, folder: Path) -> None:
    """Write config.json, the weights and the tokenizer into a folder that is there.

    Nothing of ours is needed to load it.
    """
    texts = {
        "config.json": json.dumps(form.config, indent=2),
        "generation_config.json": json.dumps({"do_sample": False}),
        "tokenizer.json": as_hf(tokenizer).to_str(),
        "tokenizer_config.json": json.dumps(config_of(tokenizer, block_size), indent=2),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    save_file(form.tensors, folder / "model.safetensors", metadata={"format": "pt"})


def export(run: Run, kind: str, folder: Path) -> Form:
    """Write a run into `folder`, all of it or nothing.

    Raises UserError, one line, for a model that has no such form.
    """
    form = form_of(run.model, run.settings.block_size)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; remove it, or choose another --out")
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
        whole = part / folder.name  # which others may read, unlike the temporary folder
        whole.mkdir()
        if kind == "hf":
            write_hf(form, run.tokenizer, run.settings.block_size, whole)
        else:
            write_gguf(form, run.tokenizer, whole / "model.gguf")
        if folder.exists():
            folder.rmdir()
        whole.replace(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    finally:
        if part:
            shutil.rmtree(part, ignore_errors=True)
    return form


HOW = """load it with:
    model = AutoModelForCausalLM.from_pretrained("{folder}")
    tokenizer = AutoTokenizer.from_pretrained("{folder}")"""


@command
def main() -> None:
    a = parse_as(Arguments, sys.argv[1:])
    if not a.run:
        raise UserError(
            "name a run folder or an experiment: python -m common.tools.export assemble --format hf"
        )
    located = locate(a.run)
    run, folder = load_run(located), a.out or located / a.format
    form = export(run, a.format, folder)
    count = sum(tensor.numel() for tensor in form.tensors.values())
    print(f"written: {folder}, the form of {form.name}, {count:,} numbers, tokenizer {run.tokenizer.name}")
    if a.format == "hf":
        print(HOW.format(folder=folder))


if __name__ == "__main__":
    main()
