"""Every notebook runs from top to bottom in a fresh process, by nbdev's own runner, and its saved texts are what comes out; cells with the flag `slow` are left out."""
import json, multiprocessing, sys
from pathlib import Path
from types import SimpleNamespace
import pytest

root = Path(__file__).parent.parent
sys.path.insert(0, str(root/'tools'))
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o.startswith(('.','_')) for o in p.relative_to(root).parts))

# Fresh processes are forked, where that is safe, from one that has imported what takes long and is not ours.
processes = multiprocessing.get_context('forkserver' if sys.platform == 'linux' else 'spawn')
if sys.platform == 'linux': processes.set_forkserver_preload(['torch._dynamo', 'torchvision', 'timm', 'sklearn.model_selection', 'scipy.stats', 'pandas', 'matplotlib.pyplot', 'nbdev.test', 'nbdev.showdoc']) # fastai itself sets options of pandas

def run(nb, tmp_path):
    "Check one notebook in a fresh process: its exit status, and all that it said."
    from run_notebooks import in_process
    (said := tmp_path/'said.txt').touch()
    p = processes.Process(target=in_process, args=(str(said), '--check', str(nb)))
    p.start(); p.join(300)
    if late := p.is_alive(): p.kill(); p.join()
    res = SimpleNamespace(status=p.exitcode, said=said.read_text(encoding='utf-8', errors='replace'))
    if late: pytest.fail(f'{nb.name} takes more than five minutes: {res.said[-3000:]}')
    return res

@pytest.mark.parametrize('nb', notebooks, ids=lambda p: p.stem)
def test_notebook(nb, tmp_path):
    res = run(nb, tmp_path)
    assert res.status == 0 and f'{nb.name}: ok' in res.said, res.said[-9000:]

def notebook(*cells):
    "A notebook of code cells, each `(source, text below it)`"
    def cell(i, source, text=None): return dict(cell_type='code', id=str(i), metadata={}, execution_count=None, source=[source], outputs=[dict(output_type='execute_result', execution_count=1, metadata={}, data={'text/plain':[text]})] if text else [])
    return dict(cells=[cell(i, *o) for i,o in enumerate(cells)], metadata={}, nbformat=4, nbformat_minor=5)

def test_a_failing_notebook_fails(tmp_path):
    "The runner notices: a notebook with a wrong cell is a failure, and so is one whose saved text is wrong."
    (tmp_path/'bad.ipynb').write_text(json.dumps(notebook(('assert 1 == 2',))))
    res = run(tmp_path/'bad.ipynb', tmp_path)
    assert res.status != 0 and 'assert 1 == 2' in res.said
    (tmp_path/'old.ipynb').write_text(json.dumps(notebook(('1+1', '3'))))
    res = run(tmp_path/'old.ipynb', tmp_path)
    assert res.status != 0 and 'not what is saved' in res.said and '+2' in res.said

def test_a_notebook_starts_and_ends_like_any_process(tmp_path):
    "What it starts is started as Python does it here, not as the notebook was; what is to be done at the end is done."
    (tmp_path/'n.ipynb').write_text(json.dumps(notebook((f"import atexit, multiprocessing, pathlib\nassert multiprocessing.get_start_method() == multiprocessing.get_all_start_methods()[0]\natexit.register(pathlib.Path({str(tmp_path/'end')!r}).touch);",))))
    res = run(tmp_path/'n.ipynb', tmp_path)
    assert res.status == 0 and (tmp_path/'end').exists(), res.said

trained = ('class L:\n    def fit(self): pass\nlearn = L()\nlearn.fit()',)

@pytest.mark.parametrize('cell,now,before,same', [
    ('1/3', '0.3333', '0.33334', True), ('1/3', '0.34', '0.33', True), ('1/3', '0.35', '0.33', False), ('1/3', '1e-7', '2e-7', False), ('f()', '[1, 2]', '[1,  3]', False), ('f()', '[1, 2]', '[1, 2, 3]', False),
    ('f()', "'a  b'", "'a b'", True), ('f()', "'right'", "'wrong'", False), ('f()', 'v2', 'v3', False), ('f()', '-1', '1', False), ('f()', None, '7', False), ('f()', '7', None, False),
    ('f', '<f at 0x7f8812345678>', '<f at 0x7f0000000000>', True), ('path', '/tmp/a1/b.png', '/tmp/c2/d.png', True),
    ('#| varies\nf()', '1.7 s', '3 minutes', True), ('#| varies\nf()', None, '7', False), ('#| slow\nf()', None, '7', True),
    ('learn.x', '6', '7', True), ('y', '6', '7', False), ('x = learn\nx', "'a'", "'b'", True), ('print(learn)', None, '7', False)])
def test_what_may_differ(cell, now, before, same):
    from run_notebooks import differences
    assert bool(list(differences(notebook(trained, (cell, before)), notebook(trained, (cell, now))))) != same

def test_what_comes_from_a_training(monkeypatch):
    from run_notebooks import depends
    monkeypatch.setenv('CAPTCHA_FASTAI_DATA', 'there')
    assert depends(notebook(('a = 1',), ('def f(): return g().fit(3)',), ('b = f()',), ('c = [b]',), ('out = []\nout.append(c)',), ('out',), ('a',), ('%magic',), ("captcha_data('x')",))) == [False, True, True, True, True, True, False, False, False]
    monkeypatch.delenv('CAPTCHA_FASTAI_DATA')
    assert depends(notebook(("p = captcha_data('x')",), ('p',), ('q',))) == [True, True, False] # drawn captchas stand in for it
