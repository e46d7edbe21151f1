"""Run by torchrun in test_parallel: trains or resumes each of some runs, given as JSON, one after the other."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import torch.distributed

from shortrun.recipe import Recipe
from shortrun.train.fit import resume, train

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    for job in json.loads(Path(sys.argv[1]).read_text()):
        if "recipe" in job:
            train(Recipe.model_validate(job["recipe"]), Path(job["run"]), max_steps=job.get("max_steps"))
        else:
            resume(Path(job["run"]))
    gc.collect()
    torch.distributed.barrier()  # nobody goes while another still listens
    torch.distributed.destroy_process_group()
