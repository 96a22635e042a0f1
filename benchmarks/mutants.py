"""Do the tests notice? One change after the other is made to a module, and the module's tests run against it.

    python benchmarks/mutants.py [decode losses metrics transfer] [--n 25] [--seconds 150] [--only WORDS]

Of each module's possible mutants `--n` are drawn by number (0 takes all). The parent imports what is heavy once; every mutant lives in a fork of it. Its tests run from the quick ones to the slow ones and end at the first that fails.
A mutant is killed when a test fails or `--seconds` are over. `explained` says why survivors change nothing that anybody could see. `--only` takes those mutants whose words hold WORDS, prints what became of them, and writes nothing."""
import argparse, ast, os, random, re, shlex, signal, sys, time
from pathlib import Path
from common import load_json, results, save_json, where

root = Path(__file__).parent.parent
modules = { # module: notebooks, and tests in the order in which they run
    'decode': ['02_decode', 'test_decode.py -k "numpy or path_beam or skipped or fast_ctc"', 'test_decode_properties.py -k "one_by_one or more_than_half"'], # the compiled engine is another module
    'losses': ['10_losses', 'test_numbers.py::test_losses_by_hand', 'test_numbers.py::test_steps_needed', 'test_numbers.py::test_label_padding'],
    'metrics': ['11_metrics', 'test_numbers.py::test_metrics_know_their_names', 'test_numbers.py::test_metrics_are_plain_loops'],
    'transfer': ['test_transfer.py', '19_transfer'],
}
_root = '_Tree.__init__: self.n_class, self.parent, self.char, self.depth = (n_class, np.full(n, -1), np.full(n, -1), np.zeros(n, int)) -> '
_chunk = '_beam: step = max(1, 2 ** 23 // ((T + 1) * C * len(rules.final))) if not kernels and rules.bound else max(N, 1) -> '
explained = { # module: {words of the mutant: why nobody can see it}
    'decode': {
        '_Tree.children: key = parent * self.n_class + char -> key = parent * self.n_class - char': 'any key that is another for each pair of parent and character will do',
        _root+'self.n_class, self.parent, self.char, self.depth = (n_class, np.full(n, -1), np.full(n, -2), np.zeros(n, int))': 'the empty text has no last character, and any negative number says so',
        '_beam: size = min(size, sum(((C - 1) ** n for n in range(T + 1)))) -> pass': 'a beam wider than there are texts has empty places, which are cut off',
        _chunk+'step = max(2, 2 ** 23 // ((T + 1) * C * len(rules.final))) if not kernels and rules.bound else max(N, 1)': 'how many sequences are searched at once matters to memory alone',
        _chunk+'step = max(1, 2 ** 23 // ((T + 1) * C * len(rules.final))) if not kernels and rules.bound else max(N, 2)': 'a chunk may be longer than the batch',
    },
}

_swap = {ast.Lt:ast.LtE, ast.LtE:ast.Lt, ast.Gt:ast.GtE, ast.GtE:ast.Gt, ast.Eq:ast.NotEq, ast.NotEq:ast.Eq, ast.In:ast.NotIn, ast.NotIn:ast.In, ast.Is:ast.IsNot, ast.IsNot:ast.Is,
         ast.Add:ast.Sub, ast.Sub:ast.Add, ast.Mult:ast.Add, ast.Div:ast.Mult, ast.FloorDiv:ast.Mult, ast.And:ast.Or, ast.Or:ast.And, ast.BitAnd:ast.BitOr, ast.BitOr:ast.BitAnd}

def places(tree):
    "(path of the node, what to do) for every mutant"
    out = []
    def visit(node, skip):
        if isinstance(node, (ast.JoinedStr,ast.Raise,ast.Import,ast.ImportFrom)) or isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant): return # messages and docstrings
        if isinstance(node, ast.arg) or isinstance(node, ast.AnnAssign): return
        if isinstance(node, ast.Compare):
            out.extend((node, ('ops', i)) for i,o in enumerate(node.ops) if type(o) in _swap)
        if isinstance(node, (ast.BinOp,ast.BoolOp,ast.AugAssign)) and type(node.op) in _swap: out.append((node, 'op'))
        if isinstance(node, ast.Constant) and type(node.value) in (int,float,bool): out.append((node, 'value'))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not,ast.USub)): out.append((node, 'drop'))
        if isinstance(node, (ast.If,ast.IfExp)): out.append((node, 'test'))
        if isinstance(node, (ast.Assign,ast.AugAssign,ast.Expr)) and skip: out.append((node, 'pass'))
        for name,child in ast.iter_fields(node):
            if name in ('returns','annotation','decorator_list'): continue
            for c in child if isinstance(child, list) else [child]:
                if isinstance(c, ast.AST): visit(c, isinstance(node, (ast.FunctionDef,ast.For,ast.If,ast.While,ast.With)) and name in ('body','orelse'))
    visit(tree, False)
    return out

def _at(tree, node):
    "The statement that `node` is part of, and the names of the functions and classes around it"
    for o in ast.iter_child_nodes(tree):
        if o is node or any(c is node for c in ast.walk(o)):
            inner,names = _at(o, node) if o is not node else (None,[])
            own = [o.name] if isinstance(o, (ast.FunctionDef,ast.ClassDef)) and o is not node else []
            return inner or (o if isinstance(o, ast.stmt) else None), own+names
    return None,[]

def mutate(source, k):
    "(source, words) of mutant `k`: where it is, the statement as it was, and as it is now. Words know no line numbers, for lines move."
    tree = ast.parse(source)
    node,what = places(tree)[k]
    (stmt,names),first = _at(tree, node),lambda o: ast.unparse(o).splitlines()[next((i for i,l in enumerate(ast.unparse(o).splitlines()) if not l.startswith('@')), 0)]
    before = first(stmt)
    if what == 'op': node.op = _swap[type(node.op)]()
    elif isinstance(what, tuple): node.ops[what[1]] = _swap[type(node.ops[what[1]])]()
    elif what == 'value': node.value = not node.value if isinstance(node.value, bool) else node.value+1
    elif what == 'test': node.test = ast.UnaryOp(ast.Not(), node.test)
    elif what in ('drop','pass'):
        new = node.operand if what == 'drop' else ast.Pass()
        for parent in ast.walk(tree):
            for name,child in ast.iter_fields(parent):
                if child is node: setattr(parent, name, new)
                elif isinstance(child, list) and node in child: child[child.index(node)] = new
        if stmt is node: stmt = new
    ast.fix_missing_locations(tree)
    return ast.unparse(tree), f'{".".join(names)}: {before} -> {first(stmt)}'

class Planted:
    "Finds `captcha_fastai.NAME` as the source that is given"
    def __init__(self, name, source): self.name,self.source = f'captcha_fastai.{name}',source
    def find_spec(self, name, path, target=None):
        from importlib.machinery import ModuleSpec
        if name == self.name: return ModuleSpec(name, self, origin=str(root/'captcha_fastai'/f'{name.split(".")[1]}.py'))
    def create_module(self, spec): return None
    def exec_module(self, module): module.__file__ = module.__spec__.origin; exec(compile(self.source, module.__file__, 'exec'), module.__dict__)

def users(module):
    "The modules of the package that import `module`, straight or by others, and itself"
    imports = {f.stem: set(re.findall(r'^\s*from (?:captcha_fastai)?\.(\w+) import', f.read_text(), re.M)) for f in (root/'captcha_fastai').glob('*.py')}
    found = {module}
    while more := {k for k,v in imports.items() if v & found} - found: found |= more
    return found

def tests(module, source):
    "Run the module's tests against `source`, in this process; anything raised means: noticed"
    for o in users(module): sys.modules.pop(f'captcha_fastai.{o}', None)
    sys.meta_path.insert(0, Planted(module, source))
    import importlib, json, pytest
    made = importlib.import_module(f'captcha_fastai.{module}')
    for what in modules[module]:
        if '.py' in what:
            if pytest.main(['-x','-q','-n0','--tb=no','-p','no:cacheprovider','--no-header',*shlex.split(f'{root}/tests/{what}')]): raise AssertionError(f'{what} has failed')
            continue
        g = dict(vars(made), __name__='__main__')
        for c in json.loads((root/'nbs'/f'{what}.ipynb').read_text())['cells']:
            s = ''.join(c['source'])
            if c['cell_type'] == 'code' and not any(o in s for o in ('#| export','#| default_exp','#| slow')): exec(compile(s, what, 'exec'), g)

def noticed(module, source, seconds):
    "Is the mutant noticed, in a fork of this process?"
    pid = os.fork()
    if not pid:
        with open(os.devnull, 'w') as null:
            os.dup2(null.fileno(), 1); os.dup2(null.fileno(), 2)
            try: tests(module, source)
            except BaseException as e:
                if os.environ.get('MUTANTS_LOG'): open(os.environ['MUTANTS_LOG'], 'a').write(f'{type(e).__name__}: {e}\n')
                os._exit(1)
        os._exit(0)
    end = time.time()+seconds
    while time.time() < end:
        done,status = os.waitpid(pid, os.WNOHANG)
        if done: return 'killed' if status else None
        time.sleep(.05)
    os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
    return 'too slow'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('modules', nargs='*', default=list(modules)); p.add_argument('--n', type=int, default=25); p.add_argument('--seconds', type=float, default=150); p.add_argument('--only')
    args = p.parse_args()
    os.environ['MPLBACKEND'] = 'agg'; sys.path.insert(0, str(root/'tests')); sys.path.insert(0, str(root))
    import captcha_fastai.all, hypothesis, matplotlib.pyplot, nbdev.showdoc, pandas, pytest # noqa: F401
    torch = sys.modules['torch']; torch.set_num_threads(1)
    hypothesis.settings.register_profile('first', phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate]); hypothesis.settings.load_profile('first') # one failure is enough: none is made smaller
    for m in args.modules:
        source = (root/'captcha_fastai'/f'{m}.py').read_text()
        if noticed(m, source, args.seconds*2): sys.exit(f'the tests of {m} fail without any change')
        ks = list(range(possible := len(places(ast.parse(source)))))
        if args.only: ks = [k for k in ks if args.only in mutate(source, k)[1]]
        elif args.n: ks = sorted(random.Random(f'mutants {m}').sample(ks, min(args.n, len(ks))))
        killed,survived = 0,[]
        for k in ks:
            changed,words = mutate(source, k)
            if noticed(m, changed, args.seconds): killed += 1
            else: survived.append(dict(mutant=words, explanation=explained.get(m, {}).get(words, ''))); print(m, 'SURVIVED', words, flush=True)
        print(m, f'{killed} of {len(ks)} killed', flush=True)
        if args.only: continue
        rows = [r for r in load_json(results/'mutants.json', dict(rows=[]))['rows'] if r['module'] != m]
        save_json(results/'mutants.json', dict(rows=[*rows, dict(module=m, n=len(ks), possible=possible, killed=killed, survived=survived, **where('hypothesis','pytest'))]))

if __name__ == '__main__': main()
