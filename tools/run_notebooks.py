"""Run notebooks with nbdev's runner and keep their outputs, as a terminal would show them at the end: no half-way progress bars, no warnings of other packages.

    python tools/run_notebooks.py nbs/09_data.ipynb …   [--slow: cells with the flag `slow`, too]
    python tools/run_notebooks.py --check nbs/*.ipynb   write nothing, but fail where a saved text is not what comes out today

What `--check` lets differ: numbers by rounding; what depends on a training, by any name or file (`depends`); cells with the flag `varies`, such as those that tell a time. There only the kinds of output count."""
import argparse, ast, atexit, difflib, json, math, multiprocessing, os, re, sys, tempfile
from pathlib import Path
import nbdev.test
from nbdev.clean import nbdev_clean
from nbdev.config import get_config

_ended = re.compile(r'^.*?\|[█-]*\| +[\d.]+% \[\d+/\d+ [^\]]*\]') # a bar of fastprogress does not end its line, so what is printed next stands behind it
_bar = re.compile(r'^(█|\s*|.*\|[█-]{10,}\|.*)$')

def final_text(s):
    "What stays of `s` on a terminal when carriage returns have written over each other, without bars."
    lines = [_ended.sub('', l.rstrip('\r').split('\r')[-1]).replace('█', '').rstrip() for l in s.split('\n')]
    return '\n'.join(l for l in lines if not _bar.match(l)).strip('\n')

def tidy(nb):
    "Streams of each cell as they are at the end; empty ones and those of stderr left out."
    for c in nb['cells']:
        if c['cell_type'] != 'code': continue
        kept = []
        for o in c['outputs']:
            if o['output_type'] == 'stream':
                text = final_text(''.join(o['text']))
                if o['name'] == 'stderr' or not text: continue
                o['text'] = (text+'\n').splitlines(True)
            kept.append(o)
        c['outputs'] = kept
    return nb

# is what is saved still so?
saved_with = 3,11 # outputs are saved and compared with this Python; on others, and with what packages they get, notebooks only have to run
trainings = {'fit','fit_one_cycle','fit_flat_cos','fine_tune','pretrain','offline_online','lr_find','few_shot','suspects','audit'}
writers = {'save','save_weights','to_onnx','export','export_onnx','to_csv','push_to_hub'} # what a trained thing writes makes a folder depend on it

def depends(nb):
    "For each cell, whether something in it comes from a training, or from real images that are not on this machine."
    hot,sources,res = set(),trainings | (set() if os.environ.get('CAPTCHA_FASTAI_DATA') else {'captcha_data'}),[]
    for c in nb['cells']:
        try: body = ast.parse(''.join(c['source'])).body if c['cell_type'] == 'code' else []
        except SyntaxError: body = [] # a magic
        res.append(False)
        for st in body:
            nodes = list(ast.walk(st))
            calls = [n.func for n in nodes if isinstance(n, ast.Call)]
            if not hot & {n.id for n in nodes if isinstance(n, ast.Name)} and not sources & {getattr(f, 'attr', getattr(f, 'id', '')) for f in calls}: continue
            res[-1] = True
            hot |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} | {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
            hot |= {f.value.id for f in calls if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.attr in sources | {'append','extend','update'}}
            hot |= {n.id for o in nodes if isinstance(o, ast.Call) and getattr(o.func, 'attr', '') in writers for a in o.args for n in ast.walk(a) if isinstance(n, ast.Name)}
    return res

_number = re.compile(r'(?<![\w.])[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])')

def _words(s):
    s = re.sub(r' at 0x[0-9a-f]+', '', re.sub(r'/tmp/[\w./-]+', '/tmp/…', s)) # nbdev-clean takes addresses out
    return re.sub(r'[\s-]+', ' ', _number.sub('#', s)).strip() # tables may be laid out otherwise

def _close(a, b):
    "Are two printed numbers the same, but for rounding?"
    digits = min(len(o.partition('.')[2].partition('e')[0]) for o in (a, b)) if '.' in a and '.' in b else None
    a,b = (float(o.replace('−', '-')) for o in (a, b))
    return a == b if digits is None else math.isclose(a, b, rel_tol=1e-3, abs_tol=1.5*10**-digits)

def same_text(a, b):
    "Do two outputs say the same, numbers within rounding?"
    return _words(a) == _words(b) and all(map(_close, _number.findall(a), _number.findall(b)))

def _texts(cell):
    "Kinds and texts of a cell's outputs; HTML has a plain text beside it, or is fastai's table of a training"
    kinds,texts = [],[]
    for o in cell['outputs']:
        data = o.get('data', {})
        kinds.append(o.get('name') or '/'.join(sorted(k for k in data if k != 'text/plain')) or 'text')
        text = ''.join(o.get('text') or data.get('text/markdown') or data.get('text/plain') or '')
        texts.append('' if set(data) & {'image/png','image/jpeg','image/svg+xml'} else text)
    return kinds,texts

def differences(old, new):
    "What the saved notebook `old` says otherwise than the one that has just run, a text for each cell."
    for a,b,trained in zip(tidy(old)['cells'], tidy(new)['cells'], depends(old)):
        source = ''.join(a['source'])
        if a['cell_type'] != 'code' or re.search(r'^#\| *slow', source, re.M): continue
        (kinds,saved),(now,texts) = _texts(a),_texts(b)
        free = trained or sys.version_info[:2] != saved_with or re.search(r'^#\| *varies', source, re.M)
        if kinds == now if free else kinds == now and all(map(same_text, saved, texts)): continue
        diff = '\n'.join(difflib.unified_diff([*kinds, *'\n'.join(saved).split('\n')], [*now, *'\n'.join(texts).split('\n')], 'saved', 'now', lineterm='', n=1))
        yield f'The output of this cell is not what is saved (run tools/run_notebooks.py):\n{source[:600]}\n{diff[:2000]}\n'

def run(nb, check=False, slow=False):
    "Run the notebook `nb`; (went well?, seconds, differences)"
    cfg,write = get_config(Path(__file__).parent.parent),nbdev.test.write_nb
    with tempfile.TemporaryDirectory() as d:
        made = Path(d)/nb.name
        nbdev.test.write_nb = lambda o,_: write(o, made) # the notebook itself is written at the end
        try: ok,seconds = nbdev.test.test_nb(nb, skip_flags=cfg.tst_flags.split(), force_flags=['slow'] if slow else [], basepath=cfg.config_path, save=True, cell_timeout=120 if check else 600)
        finally: nbdev.test.write_nb = write
        if not ok: return False,seconds,[]
        old = json.loads(nb.read_text(encoding='utf-8'))
        new = json.loads(made.read_text(encoding='utf-8')) if made.exists() else old
    if check: return True,seconds,list(differences(old, new))
    nb.write_text(json.dumps(tidy(new), indent=1, ensure_ascii=False)+'\n', encoding='utf-8')
    nbdev_clean(fname=str(nb))
    return True,seconds,[]

def main(words=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='+', type=Path)
    p.add_argument('--slow', action='store_true', help='run cells with the flag `slow`, too')
    p.add_argument('--check', action='store_true', help='write nothing; fail if a saved output is not what comes out')
    args = p.parse_args(words)
    failed = 0
    for nb in map(Path.resolve, args.notebooks):
        ok,seconds,diffs = run(nb, args.check, args.slow)
        failed += not ok or bool(diffs)
        print(*diffs, f'{nb.name}: {"FAILED" if not ok else "differs" if diffs else "ok"}, {seconds:.1f} s', sep='\n', flush=True)
    sys.exit(bool(failed))

def in_process(said, *words):
    "For a process of its own: `main`, with all that it and its children say in the file `said`."
    os.chdir(Path(__file__).parent.parent)
    with open(said, 'wb') as f:
        for o in (1, 2): os.dup2(f.fileno(), o)
    sys.stdout,sys.stderr = (open(o, 'w', encoding='utf-8', buffering=1, closefd=False) for o in (1, 2)) # a test runner may have put others there
    multiprocessing.set_start_method(None, force=True) # that of this process is of no concern to what the notebooks start
    try: main(words)
    finally: atexit._run_exitfuncs() # which such a process leaves out

if __name__ == '__main__': main()
