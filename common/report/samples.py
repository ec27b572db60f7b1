"""What a script of each stage writes after the same word: kept in logs/samples.csv, shown by the README.

`python -m common.tools.course samples` makes the file.
"""

import csv
from pathlib import Path

from common.errors import UserError
from common.lessons import receipts
from common.lessons.course import Reference, course_plan, refer
from common.paths import logs_folder
from common.report.evidence import DAGGER, FOOTNOTE, NOT_YET, Measured
from common.report.tables import markdown, number

# of each stage a line that shows where it stands
LINES = (
    "01_bigram/count_bigram", "01_bigram/ngram:5", "02_attention/multi_head", "03_ffn/feed_forward:gelu",
    "04_stacking/stack", "05_residual_norm/pre_ln", "06_transformer/fast_gpt --preset yardstick",
    "07_tokenizer_gqa/bpe:bpe-1024", "08_micro_arch/assemble --config winners", "09_pretraining/pretrain",
)  # fmt: skip
# one of them, which writes at several temperatures
TEMPERED, TEMPERATURES = "01_bigram/ngram:5", ("0", "0.5", "1", "2")
COLUMNS = ("line", "temperature", "prompt", "random", "fingerprint", "text")


def samples_path() -> Path:
    return logs_folder() / "samples.csv"


def fingerprint_of(reference: Reference, code: str) -> str:
    """What stands for the settings and the code that a sample was made with."""
    return f"{reference.config()}-{code}"


def read(path: Path | None = None) -> dict[tuple[str, str], dict[str, str]]:
    """{(line, temperature): its row}; empty where there is no file.

    Raises UserError for a file that is none of samples.
    """
    path = path or samples_path()
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
            raise ValueError("its columns are others")
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is no file of samples ({error}); git checkout {path} restores it") from None
    return {(row[0], row[1]): dict(zip(COLUMNS, row, strict=True)) for row in rows}


def write(rows: list[dict[str, str]], path: Path | None = None) -> None:
    """Replace the file, all of it or nothing."""
    path = path or samples_path()
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def strip(measured: Measured, prompt: str) -> str:
    """A table of what the lines write after a prompt, each with its bits per character."""
    kept, rows = read(), []
    for name in LINES:
        reference = refer(name)
        line = measured.line(reference)
        bits = number(line.rows.test_bpc.mean(), ".2f") + line.mark if len(line.rows) else NOT_YET
        said = _said(reference, kept.get((name, "1")), prompt)
        title = course_plan(reference.experiment).header.title.partition(":")[0]
        rows.append([reference.experiment.split("_")[0], title, bits, said])
    return _table({"stage": "--:", "script": "---", "bits": "--:", f"after {prompt}": "---"}, rows)


def written(measured: Measured, stage: str) -> str:
    """What the lines of a stage write, in full. Raises UserError for a stage without such a line."""
    kept, parts = read(), []
    own = [name for name in LINES if name.startswith(f"{stage}/")]
    if not own:
        raise UserError(f"no line of stage {stage!r} writes a sample; see LINES in common/report/samples.py")
    for name in own:
        reference, row = refer(name), kept.get((name, "1"))
        line = measured.line(reference)
        bits = f"{number(line.rows.test_bpc.mean(), '.2f')}{line.mark} bits" if len(line.rows) else NOT_YET
        short = name.split("/")[1]
        if not row:
            parts.append(f"**What it writes.** `{short}`: {NOT_YET}\n")
            continue
        mark = "" if _is_current(reference, row) else DAGGER
        parts.append(f"**What it writes**{mark} after `{row['prompt']}`: `{short}`, {bits}.\n\n"
                     f"```text\n{row['text'].strip()}\n```\n")  # fmt: skip
    text = "\n".join(parts)
    return text + (f"\n{FOOTNOTE}\n" if DAGGER in text else "")


def tempered(prompt: str) -> str:
    """A table of what one line writes after a prompt at several temperatures."""
    kept, reference = read(), refer(TEMPERED)
    rows = [[t, _said(reference, kept.get((TEMPERED, t)), prompt)] for t in TEMPERATURES]
    return _table({"temperature": "--:", f"after {prompt}": "---"}, rows)


def _table(columns: dict[str, str], rows: list[list[str]]) -> str:
    old = any(DAGGER in cell for row in rows for cell in row)
    return markdown(columns, rows) + (f"\n{FOOTNOTE}\n" if old else "")


def _said(reference: Reference, row: dict[str, str] | None, prompt: str) -> str:
    if not row or row["prompt"] != prompt:
        return NOT_YET
    return _one_line(row["text"]) + ("" if _is_current(reference, row) else DAGGER)


def _is_current(reference: Reference, row: dict[str, str]) -> bool:
    line = (reference.experiment, reference.arm, reference.config())
    good = receipts.codes(*line, reference.code)
    return row["fingerprint"] in {fingerprint_of(reference, code) for code in good}


def _one_line(text: str) -> str:
    """A text as it may stand in the cell of a table: a line break as a sign, nothing that Markdown reads."""
    shown = " ↵ ".join(line.strip() for line in text.split("\n") if line.strip())
    for sign in "\\`*_{}[]<>#|~$":
        shown = shown.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return shown
