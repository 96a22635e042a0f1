"""Which lines of the package do notebooks and tests run, all together?

    python benchmarks/covered.py [words] [--data cache/coverage]     # those notebooks and files of tests whose names hold one of the words; none: all
    python benchmarks/covered.py --report                            # nothing runs; what is there is put together, with the lines that nothing has run

An exported cell *is* lines of the package, so a notebook that runs it has run those. Every notebook (without cells that are `slow`) and every file of tests lives in a fork of a process that has imported what is heavy;
what they start, such as commands and data workers, is measured too. What each has run is kept in `--data`, so that one of them can be measured again; a line counts for as long as its module is what it was then.
A notebook or a file of tests that fails counts for what it has run, and its name is in the answer."""
import __future__, argparse, ast, asyncio, hashlib, inspect, json, math, os, re, signal, sys, tempfile, time, traceback, types
from pathlib import Path
from common import cache, load_json, results, save_json, where

root = Path(__file__).resolve().parent.parent
package = root/'captcha_fastai'
notebooks = {p.relative_to(root).as_posix(): p for p in sorted((root/'nbs').rglob('*.ipynb')) if not any(o.startswith(('.','_')) for o in p.relative_to(root).parts)}
tests = {p.relative_to(root).as_posix(): p for p in sorted((root/'tests').glob('test_*.py')) if p.stem != 'test_notebooks'} # notebooks run by themselves

interpreted = ('01a_kernels','02_decode') # here Python runs what numba compiles elsewhere, for nobody sees the lines of compiled code

def digest(path): return hashlib.sha256(path.read_bytes()).hexdigest()

def modules(): return {o.name: o for o in sorted(package.glob('*.py'))}

# a notebook

_own = re.compile(r'\bfrom (captcha_fastai\.?|\.)') # exporting makes some imports relative
_futures = [getattr(__future__, o).compiler_flag for o in __future__.all_feature_names]

def exported():
    "{id of an exported cell: (its module, the line after its heading)}"
    return {m[1]: (o, i+1) for o in modules().values() for i,l in enumerate(o.read_text().splitlines()) if (m := re.match(r'# %% \.\./nbs/.* #(\w+)$', l))}

def located(cell, places):
    "The cell's syntax tree and file name; for an exported cell those of the package"
    source = ''.join(cell['source'])
    if cell.get('id') not in places or not re.search(r'^#\| *export', source, re.M): return ast.parse(source), f'<{cell.get("id")}>'
    module,line = places[cell['id']]
    body = re.sub(r'^#\|.*\n', '', source, flags=re.M).rstrip()
    there = '\n'.join(module.read_text().splitlines()[line:line+len(body.splitlines())])
    assert _own.sub('', body) == _own.sub('', there), f'{module.name} is not what the notebooks export: run nbdev-export'
    return ast.increment_lineno(ast.parse(body), line), str(module)

def run_notebook(path):
    "Its code cells in a module `__main__`, values at the ends of cells shown to nobody"
    from IPython.core.interactiveshell import InteractiveShell
    show,loop,main,places,flags = InteractiveShell.instance().display_formatter.format,asyncio.new_event_loop(),types.ModuleType('__main__'),exported(),ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    sys.modules['__main__'] = main
    os.chdir(path.parent); sys.path.insert(0, '')
    for c in json.loads(path.read_text())['cells']:
        source = ''.join(c['source'])
        if c['cell_type'] != 'code' or re.search(r'^#\| *(slow|eval: *false)', source, re.M): continue
        tree,name = located(c, places)
        last = tree.body.pop().value if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        for part,mode in ((tree,'exec'), (last and ast.Expression(last),'eval')):
            if not part: continue
            code = compile(part, name, mode, flags=flags, dont_inherit=True)
            for o in _futures: flags |= code.co_flags & o # in a notebook, `from __future__ import …` holds for all cells below
            value = eval(code, vars(main))
            if code.co_flags & inspect.CO_COROUTINE: value = loop.run_until_complete(value)
            if mode == 'eval' and not source.rstrip().endswith(';'): show(value)

def run_tests(path):
    import pytest
    status = pytest.main(['-q','-n0','-p','no:cacheprovider','--tb=short',str(path)])
    if status: raise AssertionError(f'pytest ended with {status!r}')

# measuring

def measured(name, folder):
    "Run one of them in this process, its lines written to `folder`"
    import coverage
    for o in [o for o in sys.modules if o.split('.')[0] == package.name]: del sys.modules[o] # what `common` has imported before anybody looked
    if Path(name).stem in interpreted:
        import numba
        numba.config.DISABLE_JIT = True
    (folder/'config').write_text(f'[run]\nsource_dirs = {package}\ndata_file = {folder}/data\nparallel = true\npatch = subprocess\nconcurrency = thread, multiprocessing\n') # for workers and commands too
    cov = coverage.Coverage(config_file=str(folder/'config'))
    cov.start()
    if Path(name).stem in interpreted:
        from captcha_fastai import kernels
        kernels.log = lambda x: math.log(x) if x else -math.inf # as compiled
    try: run_notebook(notebooks[name]) if name in notebooks else run_tests(tests[name])
    finally: cov.stop(); cov.save()

def lines_of(folder):
    "{module: lines} of all data files in `folder`"
    from coverage import CoverageData
    found = {}
    for f in folder.glob('data*'):
        d = CoverageData(str(f)); d.read()
        for o in d.measured_files():
            if Path(o).parent == package: found.setdefault(Path(o).name, set()).update(d.lines(o))
    return {k: sorted(v) for k,v in sorted(found.items())}

def measure(name, data, seconds):
    "Run one of them in a fork, and keep what it has run"
    before,start = {k: digest(o) for k,o in modules().items()},time.time()
    log = data/(name.replace('/', '.')+'.log')
    with tempfile.TemporaryDirectory() as tmp:
        if not (pid := os.fork()):
            os.setsid()
            with open(log, 'w') as f:
                os.dup2(f.fileno(), 1); os.dup2(f.fileno(), 2)
                try: measured(name, Path(tmp)); status = 0
                except BaseException: traceback.print_exc(); status = 1
                sys.stdout.flush(); sys.stderr.flush()
            os._exit(status)
        done = 0
        while not done and time.time() < start+seconds: done,status = os.waitpid(pid, os.WNOHANG); time.sleep(.1)
        if not done: os.killpg(pid, signal.SIGKILL); _,status = os.waitpid(pid, 0)
        made = dict(failed=bool(status), seconds=round(time.time()-start), sources=before, lines=lines_of(Path(tmp)))
    save_json(data/(name.replace('/', '.')+'.json'), dict(name=name, **made))
    print(name, 'FAILED' if status else 'ok', made['seconds'], 's', flush=True)

# the answer

def report(data):
    "Lines of the package that somebody has run, and those that nobody has"
    import coverage
    runs = [o for f in sorted(data.glob('*.json')) if (o := load_json(f))['name'] in {*notebooks, *tests}]
    cov,rows = coverage.Coverage(data_file=None, config_file=False),[]
    cov.start(); cov.stop()
    for name,path in modules().items():
        now,ran = digest(path),set()
        for o in runs:
            if o['sources'].get(name) == now: ran |= set(o['lines'].get(name, []))
        _,lines,_,_,_ = cov.analysis2(str(path))
        missing = [l for l in lines if l not in ran]
        rows.append(dict(module=path.stem, lines=len(lines), run=len(lines)-len(missing), missing=missing))
    lines,ran = (sum(r[k] for r in rows) for k in ('lines','run'))
    return dict(lines=lines, run=ran, percent=round(100*ran/max(lines, 1), 2), notebooks=sum(o['name'] in notebooks for o in runs), tests=sum(o['name'] in tests for o in runs),
                of=dict(notebooks=len(notebooks), tests=len(tests)), failed=[o['name'] for o in runs if o['failed']], modules=rows, **where('coverage'))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('words', nargs='*'); p.add_argument('--data', type=Path, default=cache/'coverage'); p.add_argument('--seconds', type=float, default=1800, help='at most for each (default: %(default)s)'); p.add_argument('--report', action='store_true')
    args = p.parse_args()
    args.data = args.data.resolve(); args.data.mkdir(parents=True, exist_ok=True)
    if not args.report:
        os.environ['MPLBACKEND'] = 'agg'; sys.path.insert(0, str(root/'tests')); sys.path.insert(0, str(root))
        import fastai.vision.all, hypothesis, IPython, matplotlib.pyplot, nbdev.showdoc, pandas, pytest # noqa: F401
        sys.modules['torch'].set_num_threads(1)
        for name in [*notebooks, *tests]:
            if not args.words or any(o in name for o in args.words): measure(name, args.data, args.seconds)
    r = report(args.data)
    for o in r['modules']:
        if o['missing']: print(f"{o['module']}: {o['run']} of {o['lines']}; not {', '.join(map(str, o['missing']))}")
    print(f"{r['run']:,} of {r['lines']:,} lines, {r['percent']} %; {r['notebooks']} of {r['of']['notebooks']} notebooks, {r['tests']} of {r['of']['tests']} files of tests; failed: {', '.join(r['failed']) or 'none'}")
    save_json(results/'coverage.json', r)

if __name__ == '__main__': main()
