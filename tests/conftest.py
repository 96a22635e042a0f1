"""Tests run in several processes, each on a core of its own."""
import os

if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is imported, also by what the tests start
