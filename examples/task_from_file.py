"""A kind of problem of your own, described by a TOML file beside this one: python examples/task_from_file.py

Shows what the task finds in the model's responses, then runs 12 problems under it. The model knows lists of words.
"""

from pathlib import Path

from tacit.assembly import assembled
from tacit.bank import open_bank
from tacit.config import RunConfig
from tacit.experiments.run import run
from tacit.problem import Problem

TASK = Path(__file__).with_name("task.toml")
config = RunConfig(model="testbed:C", data="testbed:C:list", task=str(TASK), limit=12, window=4, out="runs/task")

with open_bank("look.sqlite") as bank, assembled(config, bank) as agent:
    [answered] = agent.answer([Problem("look", "sort these letters: s, q, h, d")])
    for sample, answer in zip(answered.zero_shot.samples, answered.zero_shot.answers, strict=True):
        print(f"{sample.text!r} -> {answer!r}")
    print("the vote:", answered.zero_shot.vote.why)

summary = run(config)  # the same as: tacit run --model testbed:C --data testbed:C:list --task examples/task.toml ...
for arm in ("zero_shot", "routed"):
    print(f"{arm}: {summary['arms'][arm]['accuracy']:.2f} of {summary['arms'][arm]['n']} answers right")
print("pages and figures: runs/task/report.html")
