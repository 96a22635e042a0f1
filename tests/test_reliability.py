"""A slice of the campaigns of `benchmarks/reliability.py`: malformed images, odd names, damaged tables, a killed training, a full disk."""
import ast, json, os, sys, tempfile
from pathlib import Path
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent/'benchmarks'))
from malformed import kinds, malformed # noqa: E402
import covered, mutants, reliability # noqa: E402

def test_images_are_numbered():
    assert [malformed(3, i)[1] for i in range(60)] == [malformed(3, i)[1] for i in range(60)] != [malformed(4, i)[1] for i in range(60)]
    assert [malformed(3, i)[0] for i in range(len(kinds))] == list(kinds)

def test_malformed_images(tmp_path):
    res = reliability.images(4*len(kinds), tmp_path)
    assert res['wrong'] == []
    assert res['kinds']['16 bits'] == {'right':4} and res['kinds']['noise'] == {'error':4}
    assert len(res['ways']) == 17

def test_odd_names():
    with tempfile.TemporaryDirectory() as d: # whose parents let those in who are not root
        os.chmod(d, 0o755)
        assert reliability.names(Path(d))['wrong'] == []

def test_damaged_tables(tmp_path):
    res = reliability.tables(60, tmp_path)
    assert res['wrong'] == [] and res['answers']['right'] > 10 and res['answers']['error'] > 10

@pytest.mark.skipif(sys.platform == 'win32', reason='needs SIGKILL')
def test_killed(tmp_path):
    row, = reliability.kills(tmp_path, 1, ['online'])
    assert row['bit_identical'] and row['kills'] == 1

def test_the_judge_is_awake():
    "The campaigns can fail"
    _,data,_,im,_ = malformed(0, list(kinds).index('16 bits'))
    class Fake:
        def read(self, x): return reliability.Reading('1', .5)
    assert reliability.judge(('1', .5), 'same', im, data, Fake()) == 'right'
    for found,expected in ((('2', .5), 'same'), (('1', .4), 'same'), ('an error.', 'same'), (('1', .5), 'error'), ('Traceback', 'error'), ('<x at 0x7f3a2b1c0d>', 'either')):
        assert reliability.judge(found, expected, im, data, Fake()) not in ('right','error')

def test_full_disk(tmp_path):
    res = reliability.disk(tmp_path)
    if res['kind'] is None: pytest.skip('no tmpfs can be mounted here')
    assert res['warnings'] and 'No space left' in res['first'] and res['last_good'] == dict(epoch=0, batch=3) and res['files'] == ['fit-0.ckpt']

def test_mutants():
    "Every place of a small module, docstrings and messages left out; what is explained is still there"
    source = 'def f(x):\n    "Add 1"\n    y = x+1\n    if y < 0: raise ValueError(f"{y+1}")\n    return y'
    assert [mutants.mutate(source, k)[1] for k in range(len(mutants.places(ast.parse(source))))] == [
        'f: y = x + 1 -> pass', 'f: y = x + 1 -> y = x - 1', 'f: y = x + 1 -> y = x + 2', 'f: if y < 0: -> if not y < 0:', 'f: if y < 0: -> if y <= 0:', 'f: if y < 0: -> if y < 1:']
    for module,known in mutants.explained.items():
        text = ast.unparse(ast.parse((mutants.root/'captcha_fastai'/f'{module}.py').read_text()))
        for words in known: assert words.split(': ', 1)[1].split(' -> ')[0] in text, words

def test_exported_cells_are_lines_of_the_package():
    places = covered.exported()
    found = [covered.located(c, places)[1] for nb in covered.notebooks.values() for c in json.loads(nb.read_text())['cells'] if c['cell_type'] == 'code' and not ''.join(c['source']).startswith(('!','%'))]
    assert sum(o.endswith('.py') for o in found) == len(places) > 400
