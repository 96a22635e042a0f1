"""Every notebook runs from top to bottom in a fresh process, by nbdev's own runner; cells with the flag `slow` are left out."""
import os, subprocess, sys
from pathlib import Path
import pytest

root = Path(__file__).parent.parent
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o.startswith(('.','_')) for o in p.relative_to(root).parts))

@pytest.mark.parametrize('nb', notebooks, ids=lambda p: p.stem)
def test_notebook(nb):
    env = dict(os.environ, MPLBACKEND='agg')
    code = 'from nbdev.test import nbdev_test; nbdev_test()'
    res = subprocess.run([sys.executable, '-c', f'import sys; sys.argv = ["nbdev-test", "--path", {str(nb)!r}, "--n_workers", "0"]; {code}'],
                         cwd=root, env=env, capture_output=True, text=True, timeout=600)
    assert res.returncode == 0, res.stdout[-3000:] + res.stderr[-6000:]

def test_a_failing_notebook_fails(tmp_path):
    "The runner would notice: a notebook with a wrong cell is a failure."
    import json
    src = json.loads(notebooks[0].read_text())
    src['cells'] = [dict(cell_type='code', id='a', metadata={}, outputs=[], execution_count=None, source=['assert 1 == 2'])]
    bad = tmp_path/'bad.ipynb'; bad.write_text(json.dumps(src))
    code = f'from nbdev.test import test_nb; import sys; sys.exit(not test_nb({str(bad)!r})[0])'
    assert subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True).returncode != 0
