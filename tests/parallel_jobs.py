"""Run by torchrun in test_parallel: trains or resumes each of some runs, given as JSON, one after the other."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import torch.distributed

from shortrun.recipe import Recipe
from shortrun.track.tracking import Tracking, trackers
from shortrun.train.fit import resume, train

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    for job in json.loads(Path(sys.argv[1]).read_text()):
        with Tracking(trackers(job.get("track", []))) as tracking:
            if "recipe" in job:
                recipe, steps = Recipe.model_validate(job["recipe"]), job.get("max_steps")
                train(recipe, Path(job["run"]), max_steps=steps, on_event=tracking)
            else:
                resume(Path(job["run"]), on_event=tracking)
    gc.collect()
    torch.distributed.barrier()  # nobody goes while another still listens
    torch.distributed.destroy_process_group()
