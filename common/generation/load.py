"""The model of a run, ready to write."""

import sys
import typing
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from common import lessons
from common.command_line import check_sizes, check_values
from common.config_file import checked
from common.data import Data
from common.data.tokenizer import Tokenizer, from_state
from common.errors import UserError
from common.generation.sampling import sample
from common.lessons import receipts
from common.lessons.plan import Plan
from common.lessons.run_folder import find_run
from common.settings import NamesSettings, Options, Settings
from common.training import checkpoint


@dataclass
class Run:
    """A trained model and what is needed to sample from it."""

    model: nn.Module
    tokenizer: Tokenizer
    settings: Settings
    plan: lessons.Plan
    state: dict
    device: str

    def sample(self, prompt: str = "", length: int = 300, seed: int = 1, **how) -> str:
        """Text that goes on from `prompt`, or ten names that are not in the list it was trained on.

        Where that list is no longer there, names of it are not told from others, and a line says so.
        """
        known: frozenset[str] | None = None
        if isinstance(self.settings, NamesSettings):
            try:
                known = self.data().names
            except UserError as error:
                known = frozenset()
                print(f"names that it was trained on may be among these: {error}", file=sys.stderr)
        parts = (self.model, self.tokenizer, self.settings.block_size)
        return sample(parts, seed, prompt, length, self.device, known, **how)

    def data(self) -> Data:
        """What it was trained on. Raises UserError where that is no longer there."""
        return self.plan.load(self.settings, self.device, self.tokenizer)


def load_run(folder: Path, device: str = "cpu", plan: Plan | None = None) -> Run:
    """The model of a run folder.

    plan: the script that it is known to be of, as where a script of one's own samples from its run; else it
    has to be one of this project. Raises UserError if the folder holds no checkpoint of the script as it is
    now.
    """
    saved = checkpoint.load(folder / checkpoint.NAME)
    lacking = next((name for name in checkpoint.SAYS if name not in saved.state), None)
    if lacking:
        raise UserError(f"{folder}: its checkpoint does not say the {lacking} of its run; train again")
    experiment = str(saved.state["experiment"])
    plan, arm = plan or _plan_of(experiment, folder), str(saved.state.get("arm"))
    config = str(saved.state.get("config_hash"))
    if arm not in plan.arms or saved.state.get("code_hash") not in receipts.codes(
        experiment, arm, config, plan.code(arm)
    ):
        raise UserError(
            f"{folder} was trained by another version of {experiment}.py, or of the code it uses; train again"
        )
    tokenizer = from_state(saved.state["tokenizer"])
    kinds = typing.get_type_hints(type(plan.defaults))
    try:
        settings = saved.state["settings"].items()
        s = type(plan.defaults)(**{name: checked(name, kinds.get(name), value) for name, value in settings})
        check_values(s, Options())
        check_sizes(plan, arm, s)
        model = plan.arms[arm](s, tokenizer.vocab_size).to(device)
    except (UserError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{folder}: no model has the settings of its checkpoint ({said}); train again"
        ) from None
    checkpoint.restore_model(saved, model)
    return Run(model, tokenizer, s, plan, saved.state | {"settings": asdict(s)}, device)


def _plan_of(experiment: str, folder: Path) -> Plan:
    script = (lessons.ROOT / f"{experiment}.py").resolve()
    if script.parent.parent == lessons.ROOT and script.is_file():
        return lessons.plan(script)
    raise UserError(
        f"{folder} names the script {experiment!r}, which is not in this project; no other is run for a "
        f"checkpoint that names it. Let the script itself write: python .../{experiment}.py --generate"
    )


def locate(name: str) -> Path:
    """The run that a name means: a run folder, or an experiment's run at default settings with seed 1.

    Raises UserError.
    """
    if (Path(name) / checkpoint.NAME).exists():
        return Path(name)
    if Path(name).is_dir():
        raise UserError(
            f"{name} holds no {checkpoint.NAME}; give the folder of a run, or the name of an experiment"
        )
    reference = lessons.refer(name)
    return find_run(lessons.course_plan(reference.experiment), reference.arm, 1, reference.settings())
