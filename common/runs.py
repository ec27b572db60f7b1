"""Run folders: where the checkpoint of a run is kept, how it is found, and the model in it."""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from common import checkpoint, lesson, receipts
from common.corpora import family_of
from common.data import Data
from common.errors import UserError
from common.fingerprint import fingerprint
from common.journal import finished
from common.parsing import flags
from common.sampling import sample
from common.settings import Settings
from common.tokenizer import from_state


@dataclass
class Run:
    """A trained model and what is needed to sample from it."""

    model: nn.Module
    tokenizer: object
    settings: Settings
    plan: lesson.Plan
    state: dict
    device: str

    def sample(self, prompt: str = "", length: int = 300, seed: int = 1, **how) -> str:
        """Text that goes on from `prompt`, or ten new names where the model was trained on names."""
        return sample(self.model, self.data(), self.settings, seed, prompt, length, **how)

    def data(self) -> Data:
        """What it was trained on."""
        return self.plan.load(self.settings, self.device, self.tokenizer)


def progress(state: dict) -> str:
    """How far a run came: `1,500 steps`, or `stopped at step 200 of 1,500`."""
    s, step = state["settings"], state["step"]
    if finished(state, s["steps"], s["seconds"]):
        return f"{step:,} steps"
    return f"stopped after {state['seconds']:.0f} of {s['seconds']:g} s" if s["seconds"] else f"stopped at step {step:,} of {s['steps']:,}"


def run_folder(experiment: str, arm: str, seed: int, config: str, code: str) -> Path:
    """Where the checkpoint of a run is kept. A run of other code than the one whose checkpoint is there has a folder of its own."""
    folder = lesson.logs_folder() / "runs" / experiment / f"{arm}-seed{seed}-{config}"
    own = folder.with_name(f"{folder.name}-{code}")
    return own if own.exists() or _code_in(folder) not in (None, *receipts.codes(experiment, arm, config, code)) else folder


def _code_in(folder: Path) -> str | None:
    """What stands for the code that wrote the checkpoint of a folder; None where there is no whole one."""
    try:
        return checkpoint.read_state(folder / checkpoint.NAME).get("code_hash")
    except UserError:
        return None


def board_folder(plan: lesson.Plan, s: Settings, corpus: str, arms: list[str], seeds) -> Path:
    """Where the pictures of these arms and seeds together are kept: one folder for each choice, setting and state of the code."""
    return lesson.logs_folder() / "runs" / plan.experiment / board_name(plan, s, corpus, arms, seeds)


def board_name(plan: lesson.Plan, s: Settings, corpus: str, arms: list[str], seeds) -> str:
    """The name of that folder."""
    runs = [f"{plan.config(arm, s, corpus)}:{arm}:{seed}" for arm in arms for seed in sorted(seeds)]
    runs += [f"{arm}:{plan.code(arm)}" for arm in arms]
    digest = hashlib.sha256(" ".join(runs).encode()).hexdigest()[:12]
    return f"board-{digest}"


def measured_folder(plan: lesson.Plan) -> Path:
    """Where a script keeps what it measured besides training: one folder for each state of the code that is measured."""
    return lesson.logs_folder() / "runs" / plan.experiment / f"measured-{fingerprint([plan.measure], ())}"


def find_run(plan: lesson.Plan, arm: str, seed: int, s: Settings) -> Path:
    """The folder of the run with these settings, on this text; of the present code, else the newest.

    Raises UserError that names the runs there are, and the command to train.
    """
    own = plan.own(arm, s)
    config = plan.config(arm, s, family_of(own.corpus))
    found = [folder for folder, state in _states(plan, arm, seed).items() if state["config_hash"] == config]
    if not found:
        choice = f" --arms {arm}" if len(plan.arms) > 1 else ""
        command = f"python {plan.experiment}.py --seeds {seed}{choice} {flags(plan.defaults, s)}".strip()
        raise UserError(
            f"{plan.experiment} has no checkpoint of arm {arm!r}, seed {seed} with these settings{others(plan, arm, seed, s)}; "
            f"train it first: {command}"
        )
    codes = receipts.codes(plan.experiment, arm, config, plan.code(arm))
    return max(found, key=lambda folder: (_code_in(folder) in codes, (folder / checkpoint.NAME).stat().st_mtime))


def others(plan: lesson.Plan, arm: str, seed: int, s: Settings) -> str:
    """`; there are runs with --steps 20`: the other settings, or code, that this arm and seed was trained with; empty if there are none."""
    config = plan.config(arm, s, family_of(plan.own(arm, s).corpus))
    states = _states(plan, arm, seed).values()
    settings = [type(plan.defaults)(**state["settings"]) for state in states if state["config_hash"] != config]
    said = sorted({flags(plan.own(arm, plan.defaults), own) or "the default settings" for own in settings})
    said += ["another version of the code"] if any(state["config_hash"] == config for state in states) else []
    return f"; there are runs with {' and with '.join(said)}" if said else ""


def _states(plan: lesson.Plan, arm: str, seed: int) -> dict[Path, dict]:
    """What the whole checkpoints of an arm and seed say of their runs."""
    found = {}
    for path in (lesson.logs_folder() / "runs" / plan.experiment).glob(f"{arm}-seed{seed}-*/{checkpoint.NAME}"):
        with contextlib.suppress(UserError):
            found[path.parent] = checkpoint.read_state(path)
    return found


def load_run(folder: Path, device: str = "cpu") -> Run:
    """The model of a run folder. Raises UserError if it holds no checkpoint of a script of this project as the script is now."""
    saved = checkpoint.load(folder / checkpoint.NAME)
    experiment = str(saved.state["experiment"])
    script = (lesson.ROOT / f"{experiment}.py").resolve()
    if script.parent.parent != lesson.ROOT or not script.is_file():
        raise UserError(f"{folder} names the script {experiment!r}, which is not in this project; only runs of its own scripts are loaded")
    plan, arm = lesson.plan(script), str(saved.state.get("arm"))
    config = str(saved.state.get("config_hash"))
    if arm not in plan.arms or saved.state.get("code_hash") not in receipts.codes(experiment, arm, config, plan.code(arm)):
        raise UserError(f"{folder} was trained by another version of {experiment}.py, or of the code it uses; train again")
    s = type(plan.defaults)(**saved.state["settings"])
    tokenizer = from_state(saved.state["tokenizer"])
    model = plan.arms[saved.state["arm"]](s, tokenizer.vocab_size).to(device)
    checkpoint.restore_model(saved, model)
    return Run(model, tokenizer, s, plan, saved.state, device)


def locate(name: str) -> Path:
    """The run that a name means: a run folder, or an experiment's run at default settings with seed 1. Raises UserError."""
    if (Path(name) / checkpoint.NAME).exists():
        return Path(name)
    if Path(name).is_dir():
        raise UserError(f"{name} holds no {checkpoint.NAME}; give the folder of a run, or the name of an experiment")
    reference = lesson.refer(name)
    return find_run(lesson.course_plan(reference.experiment), reference.arm, 1, reference.settings())
