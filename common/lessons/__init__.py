"""The scripts of the course: which there are, what each would run, and what stands for the code and the
folder of a run.

Others take from here the list of scripts, the plan of a script, and references to lines of the course.
"""

from common.lessons.course import BASELINES, COURSE, Reference, course_plan, course_references, find, refer
from common.lessons.plan import Plan, build_model, plan, plan_of
from common.paths import ROOT, logs_folder

__all__ = [
    "BASELINES", "COURSE", "ROOT", "Plan", "Reference", "build_model", "course_plan", "course_references",
    "find", "logs_folder", "plan", "plan_of", "refer",
]  # fmt: skip
