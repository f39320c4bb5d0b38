"""The application as a task of Celery, with a folder as broker; run, it also asks for the task."""

import os
import subprocess
import sys
from importlib import import_module

from celery import Celery

FOLDER = os.environ["JOURNALS"]

tasks = Celery("tasks", broker="filesystem://", backend=f"file://{FOLDER}")
tasks.conf.broker_transport_options = dict.fromkeys(("data_folder_in", "data_folder_out"), FOLDER)


@tasks.task
def work() -> str:
    """Do what a request does."""
    import app

    app.burn()
    return "burned"


if __name__ == "__main__":
    import front

    with subprocess.Popen([sys.executable, "-m", "celery", "--app=tasks", *sys.argv[2:]]) as worker:
        front.serve(int(sys.argv[1]), lambda: work.delay().get(timeout=60))
        worker.terminate()
else:  # the master of the pool loads it, as it would any application
    import_module("app")
