"""Every notebook runs from top to bottom in a fresh process, by nbdev's own runner; cells with the flag `slow` are left out."""
import json, os, subprocess, sys
from pathlib import Path
import pytest

root = Path(__file__).parent.parent
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o.startswith(('.','_')) for o in p.relative_to(root).parts))

def run(nb):
    "`nbdev-test` on one notebook"
    code = f'import sys; sys.argv = ["nbdev-test", "--path", {str(nb)!r}, "--n_workers", "0"]; from nbdev.test import nbdev_test; nbdev_test()'
    return subprocess.run([sys.executable, '-c', code], cwd=root, env=dict(os.environ, MPLBACKEND='agg'), capture_output=True, text=True, timeout=300)

@pytest.mark.parametrize('nb', notebooks, ids=lambda p: p.stem)
def test_notebook(nb):
    res = run(nb)
    assert res.returncode == 0 and 'Success.' in res.stdout, res.stdout[-3000:] + res.stderr[-6000:]

def test_a_failing_notebook_fails():
    "The runner notices: a notebook with a wrong cell is a failure."
    nb = json.loads(notebooks[0].read_text())
    nb['cells'] = [dict(cell_type='code', id='a', metadata={}, outputs=[], execution_count=None, source=['assert 1 == 2'])]
    bad = root/'nbs'/'_bad_for_test.ipynb'
    bad.write_text(json.dumps(nb))
    try: assert run(bad).returncode != 0
    finally: bad.unlink()
