"""Run folders: where the checkpoint of a run is kept, and how it is found."""

import hashlib
from dataclasses import asdict
from pathlib import Path

from common.command_line import flags
from common.data.corpora import family_of
from common.errors import UserError
from common.lessons import receipts
from common.lessons.fingerprint import fingerprint
from common.lessons.plan import Plan
from common.paths import logs_folder
from common.settings import Settings
from common.training import checkpoint
from common.training.recorder import finished


def progress(state: dict) -> str:
    """How far a run came: `1,500 steps`, or `stopped at step 200 of 1,500`."""
    s, step = state["settings"], state["step"]
    if finished(state, s["steps"], s["seconds"]):
        return f"{step:,} steps"
    return (
        f"stopped after {state['seconds']:.0f} of {s['seconds']:g} s"
        if s["seconds"]
        else f"stopped at step {step:,} of {s['steps']:,}"
    )


def run_folder(experiment: str, arm: str, seed: int, config: str, code: str) -> Path:
    """Where the checkpoint of a run is kept.

    A run of other code than the one whose checkpoint is there has a folder of its own.
    """
    folder = logs_folder() / "runs" / experiment / f"{arm}-seed{seed}-{config}"
    with_code = folder.with_name(f"{folder.name}-{code}")
    return (
        with_code
        if with_code.exists()
        or _code_in(folder) not in (None, *receipts.codes(experiment, arm, config, code))
        else folder
    )


def run_folders(experiment: str, arm: str, seed: int, config: str) -> list[Path]:
    """All folders with runs of these settings, whatever code made them."""
    return sorted((logs_folder() / "runs" / experiment).glob(f"{arm}-seed{seed}-{config}*"))


def _code_in(folder: Path) -> str | None:
    """What stands for the code that wrote the checkpoint of a folder; None where there is no whole one."""
    return checkpoint.whole_state(folder / checkpoint.NAME).get("code_hash")


def overview_folder(plan: Plan, s: Settings, corpus: str, arms: list[str], seeds) -> Path:
    """Where the pictures of these arms and seeds together are kept: one folder for each choice, setting and
    state of the code.
    """
    return logs_folder() / "runs" / plan.experiment / overview_name(plan, s, corpus, arms, seeds)


def overview_name(plan: Plan, s: Settings, corpus: str, arms: list[str], seeds) -> str:
    """The name of that folder."""
    runs = [f"{plan.config(arm, s, corpus)}:{arm}:{seed}" for arm in arms for seed in sorted(seeds)]
    runs += [f"{arm}:{plan.code(arm)}" for arm in arms]
    digest = hashlib.sha256(" ".join(runs).encode()).hexdigest()[:12]
    return f"overview-{digest}"


def measured_folder(plan: Plan) -> Path:
    """Where a script keeps what it measured besides training: one folder for each state of the code that is
    measured.
    """
    return logs_folder() / "runs" / plan.experiment / f"measured-{fingerprint([plan.measure], ())}"


def find_run(plan: Plan, arm: str, seed: int, s: Settings) -> Path:
    """The folder of the run with these settings, on this text; of the present code, else the newest.

    Raises UserError that names the runs there are, and the command to train.
    """
    states = _states(plan, arm, seed)
    try:
        config = plan.config(arm, s, family_of(plan.own(arm, s).corpus))
    except UserError:  # its text is not there; what a checkpoint says of itself is enough
        same = [state for state in states.values() if state["settings"] == asdict(plan.own(arm, s))]
        if not same:
            raise
        config = max(same, key=lambda state: state["step"])["config_hash"]
    folders = [folder for folder, state in states.items() if state["config_hash"] == config]
    if not folders:
        choice = f" --arms {arm}" if len(plan.arms) > 1 else ""
        command = f"python {plan.experiment}.py --seeds {seed}{choice} {flags(plan.defaults, s)}".strip()
        raise UserError(
            f"{plan.experiment} has no checkpoint of arm {arm!r}, seed {seed} with these "
            f"settings{others(plan, arm, seed, s)}; "
            f"train it first: {command}"
        )
    codes = receipts.codes(plan.experiment, arm, config, plan.code(arm))
    return max(
        folders, key=lambda folder: (_code_in(folder) in codes, (folder / checkpoint.NAME).stat().st_mtime)
    )


def others(plan: Plan, arm: str, seed: int, s: Settings) -> str:
    """`; there are runs with --steps 20`: the other settings, or code, that this arm and seed was trained
    with; empty if there are none.
    """
    config = plan.config(arm, s, family_of(plan.own(arm, s).corpus))
    states = _states(plan, arm, seed).values()
    settings = [
        type(plan.defaults)(**state["settings"]) for state in states if state["config_hash"] != config
    ]
    said = sorted(
        {flags(plan.own(arm, plan.defaults), other) or "the default settings" for other in settings}
    )
    said += ["another version of the code"] if any(state["config_hash"] == config for state in states) else []
    return f"; there are runs with {' and with '.join(said)}" if said else ""


def _states(plan: Plan, arm: str, seed: int) -> dict[Path, dict]:
    """What the whole checkpoints of an arm and seed say of their runs."""
    paths = (logs_folder() / "runs" / plan.experiment).glob(f"{arm}-seed{seed}-*/{checkpoint.NAME}")
    states = {path.parent: checkpoint.whole_state(path) for path in paths}
    return {folder: state for folder, state in states.items() if state}
