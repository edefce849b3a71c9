"""Makes the lessons in notebooks/ collectable from anywhere, and every run single-threaded: reproducible, and
quicker on a busy machine than threads that wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch

pytest_plugins = ["lesson_items", "residuals", "two_threads"]
