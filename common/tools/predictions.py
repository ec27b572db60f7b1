"""A reader's record: what was predicted before each run (`--predict`), what came, and how often it was so."""

from collections import Counter

from common.results import predictions
from common.results.predictions import Prediction


def show_predictions() -> None:
    """Print every prediction with what was found, and how well the reader's expectations fit."""
    known = predictions.read()
    if not known:
        print("nothing predicted yet: python 05_residual_norm/pre_ln.py --seeds 1 2 3 --predict better")
        return
    print(f"{'':<12}{'run':<40}{'said':>8}{'found':>22}")
    for line, prediction in known:
        name = line["experiment"] + ("" if line["arm"] == "default" else f":{line['arm']}")
        mark = {True: "", False: "   no", None: "   open: one seed"}[prediction.right]
        found = f"{prediction.found.mean:+.3f}" + (
            f" ± {prediction.found.half:.3f}" if prediction.outcome else ""
        )
        print(f"{line['timestamp'][:10]:<12}{name:<40}{prediction.said:>8}{found:>22}{mark}")
    print()
    print("\n".join(calibration([prediction for _, prediction in known])))


def calibration(known: list[Prediction]) -> list[str]:
    """How often each word was right, and what came instead; how far numbers were off, and on which side."""
    lines = []
    closed = [p for p in known if p.outcome]
    for word in predictions.WORDS.values():
        came = Counter(p.outcome for p in closed if p.said == word)
        if came:
            others = ", ".join(f"{came[other]} {other}" for other in came if other != word)
            said = f"{word}: {came[word]} of {came.total()} right"
            lines.append(said + (f" ({others})" if others else ""))
    numbers = [(p.number, p.found.mean, p.right) for p in closed if p.number is not None]
    if numbers:
        off = sum(abs(said - found) for said, found, _ in numbers) / len(numbers)
        larger = sum(abs(said) > abs(found) for said, found, _ in numbers)
        inside = sum(bool(right) for *_, right in numbers)
        lines.append(
            f"numbers: {inside} of {len(numbers)} inside the interval, {larger} larger than what came; "
            f"off by {off:.3f} bits on average"
        )
    if closed:
        right = sum(bool(p.right) for p in closed)
        lines.append(f"in all: {right} of {len(closed)} right")
    waiting = len(known) - len(closed)
    if waiting:
        lines.append(f"{waiting} cannot be told from one seed; --seeds 1 2 3 can")
    return lines
