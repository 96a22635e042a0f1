"""Every notebook runs from top to bottom in a fresh process, by nbdev's own runner; cells with the flag `slow` are left out."""
import json, os, subprocess, sys
from pathlib import Path
import pytest

root = Path(__file__).parent.parent
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o.startswith(('.','_')) for o in p.relative_to(root).parts))

def run(nb):
    "Run one notebook by nbdev's runner in a fresh process, which says so at the end if all went well."
    code = f"""
from nbdev.config import get_config
from nbdev.test import test_nb
cfg = get_config({str(root)!r})
assert test_nb({str(nb)!r}, skip_flags=cfg.tst_flags.split(), basepath=cfg.config_path, cell_timeout=120)[0]
print('the notebook has run')"""
    return subprocess.run([sys.executable, '-c', code], cwd=root, env=dict(os.environ, MPLBACKEND='agg'), capture_output=True, text=True, timeout=300)

@pytest.mark.parametrize('nb', notebooks, ids=lambda p: p.stem)
def test_notebook(nb):
    res = run(nb)
    assert res.returncode == 0 and 'the notebook has run' in res.stdout, res.stdout[-3000:] + res.stderr[-6000:]

def test_a_failing_notebook_fails(tmp_path):
    "The runner notices: a notebook with a wrong cell is a failure."
    nb = json.loads(notebooks[0].read_text())
    nb['cells'] = [dict(cell_type='code', id='a', metadata={}, outputs=[], execution_count=None, source=['assert 1 == 2'])]
    bad = tmp_path/'bad.ipynb'
    bad.write_text(json.dumps(nb))
    res = run(bad)
    assert res.returncode != 0 and 'assert 1 == 2' in res.stderr
