"""Tests run in several processes, each on a core of its own; those that share what is dear to make stay together."""
import os
import pytest

if 'PYTEST_XDIST_WORKER' in os.environ: os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is imported, also by what the tests start

apart = 'test_notebooks', 'test_project' # nothing is shared in these

@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    "A wrapper, for the groups have to be there before pytest-xdist looks for them."
    for item in items:
        if item.path.stem not in apart: item.add_marker(pytest.mark.xdist_group(item.path.stem))
    return (yield)
