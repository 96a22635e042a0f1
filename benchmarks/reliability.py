"""What bad input, kills and full disks do to the library, counted.

    python benchmarks/reliability.py [images] [names] [tables] [kills] [disk] [--n 1120] [--kills 10]

Each word is a campaign (default: all); the others keep what `results/reliability.json` says of them. `images` makes `--n` malformed images by number and gives each to every way in;
`kills` trains twice, once undisturbed and once killed `--kills` times at random moments, and compares the weights. The reader has random weights, for what counts is not what it reads but that
every way in answers the same, or one clear error."""
import argparse, contextlib, csv, errno, io, os, random, re, resource, signal, subprocess, sys, tempfile, time, warnings
from collections import Counter
from pathlib import Path
import numpy as np
import torch
from captcha_fastai.all import *
from captcha_fastai.reading import printable
from captcha_fastai.tables import csv_line, read_table
from captcha_fastai import reader_cli, synth_cli
from captcha_fastai.cli import demo
from common import load_json, results, save_json, where
from malformed import kinds, malformed, picture, saved

seed = 0

# the ways in

def learner():
    "Random weights, sharp enough that texts differ"
    set_seed(0)
    dls = CaptchaDataLoaders.from_synth(SynthCaptcha('0123456789', 4, (40,100), seed=1), 16, 4, size=(32,80), bs=16)
    learn = captcha_learner(dls, nopool_xresnet, arch_args=dict(body='small_resnet', hidden=32))
    with torch.no_grad(): learn.model.train()(dls.one_batch()[0])
    learn.head.temperature = .05
    return learn

def call(f, *words):
    "Exit status, output and errors of a command"
    out,err = io.StringIO(),io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): status = f(list(map(str, words)))
    return status, out.getvalue(), err.getvalue()

def clear(why):
    "Is this one sentence that says nothing of the inside?"
    return bool(why) and '\n' not in why and not re.search(r'0x[0-9a-f]{6}|Traceback|File "', why)

@contextlib.contextmanager
def at_most(seconds):
    "A hang is an error"
    def _late(*_): raise TimeoutError(f'{seconds} s are over')
    old = signal.signal(signal.SIGALRM, _late); signal.alarm(seconds)
    try: yield
    finally: signal.alarm(0); signal.signal(signal.SIGALRM, old)

def one(f, x):
    "(text, confidence) or the error's sentence; anything else is raised"
    with at_most(60):
        try: r = f(x)
        except ImageError as e: return str(e)
    return r.error or (r.text, r.confidence)

class Ways:
    "Everything that takes an image."
    def __init__(self, home):
        self.learn,self.home = learner(),home
        self.reader = CaptchaReader.from_learner(self.learn, device='cpu')
        self.reader.save(home/'reader'); self.reader.to_onnx(home/'reader.onnx')
        self.onnx = OnnxReader(home/'reader.onnx')
        from starlette.testclient import TestClient
        from captcha_fastai.serve import make_app
        self.client = TestClient(make_app(self.reader, max_bytes=10**8), base_url='http://127.0.0.1:8000', raise_server_exceptions=False)

    def predict(self, x):
        t,_,c = self.learn.predict(x)
        return Reading(t, c)

    def api(self, name, data):
        "The answer of the web API in the same form, or its error"
        with at_most(60): r = self.client.post('/api/read', files=[('images', (name, data))], data=dict(n_best='1')) # more would search, as `reader.read` does for more
        o = r.json()
        if r.status_code == 200: return o['readings'][0]['text'],o['readings'][0]['confidence']
        return o['error'] if 400 <= r.status_code < 500 else f'Traceback {r.status_code}'

def same_reading(a, b): return isinstance(a, tuple) == isinstance(b, tuple) and (isinstance(a, str) or a[0] == b[0] and abs(a[1]-b[1]) < 1e-3)

def judge(found, expected, im, data, reader):
    "'right', 'error', or what is wrong with the answer `found`, given what has to become of the image"
    if isinstance(found, str): return 'error' if clear(found) and expected != 'same' else f'expected a reading: {found}' if expected == 'same' else f'not clear: {found}'
    if expected == 'error': return 'a reading without an image'
    want = im if expected == 'same' else open_image(data) # raises where there is none
    return 'right' if same_reading(found, one(reader.read, want)) else f'{found}, not {one(reader.read, want)}'

def rss(): return int(open('/proc/self/statm').read().split()[1])*resource.getpagesize()/2**20

def images(n, home, ways=None):
    "Every malformed image to every way in that takes one, then all as a folder"
    ways = ways or Ways(home)
    singles = dict(predict=lambda d: one(ways.predict, d), reader=lambda d: one(ways.reader.read, d), onnx=lambda d: one(ways.onnx.read, d), api=lambda d: ways.api('a.png', d))
    counts,bad,kind_counts,slowest,memory = {k:Counter() for k in singles},[],{k:Counter() for k in kinds},0.,[]
    def go(record, n):
        nonlocal slowest
        for i in range(n):
            kind,data,expected,im,_ = malformed(seed, i)
            for way,f in singles.items():
                start = time.time()
                try: found = f(data)
                except Exception as e: found = f'Traceback {type(e).__name__}: {e}'
                slowest = max(slowest, time.time()-start)
                if not record: continue
                exp = 'either' if way == 'api' and expected == 'same' else expected # it takes fewer formats and smaller images
                try: verdict = judge(found, exp, im, data, ways.reader)
                except ImageError: verdict = 'a reading without an image'
                counts[way][verdict if verdict in ('right','error') else 'wrong'] += 1
                if verdict not in ('right','error'): bad.append(f'{i} {kind}, {way}: {verdict}')
                if way == 'reader': kind_counts[kind][verdict if verdict in ('right','error') else 'wrong'] += 1
    go(True, n); memory.append(rss())
    for _ in range(2): go(False, min(n, 280)); memory.append(rss())
    counts.update(folders(n, home, ways, bad))
    return dict(seed=seed, n=n, ways={k:dict(v) for k,v in counts.items()}, kinds={k:dict(v) for k,v in kind_counts.items()}, wrong=bad, slowest_seconds=round(slowest, 2), megabytes=[round(o) for o in memory])

def folders(n, home, ways, bad):
    "The images as files in one folder with good ones, to everything that takes a folder or a table"
    mixed = home/'mixed'; mixed.mkdir()
    names = {}
    for i in range(n):
        kind,data,_,_,text = malformed(seed, i)
        (mixed/(name := f'{i:06d}_{text}.png')).write_bytes(data); names[name] = text
    good = []
    for name in names:
        try: open_image(mixed/name); good.append(name)
        except ImageError: pass
    counts = {}
    def count(way, ok, why=''):
        counts.setdefault(way, Counter())['right' if ok else 'wrong'] += 1
        if not ok: bad.append(f'{way}: {why}')
    def fails(f):
        try: f(); return ''
        except ValueError as e: return str(e)
    kw = dict(label_func=label_of, seed=0, bs=8, num_workers=0, size=(32,80))
    said = fails(lambda: CaptchaDataLoaders.from_folder(mixed, **kw))
    count('from_folder, strict', clear(said) and f"{n-len(good)} of {n} images can't be used" in said, said)
    rows = [('file','text'), *names.items()]
    (home/'all.csv').write_text(''.join(map(csv_line, rows)))
    said = fails(lambda: CaptchaDataLoaders.from_csv(home, 'all.csv', folder='mixed', **{k:v for k,v in kw.items() if k != 'label_func'}))
    count('from_csv, strict', clear(said) and f"{n-len(good)} of {n} images can't be used" in said, said)
    for way,make in (('from_folder, skip_bad', lambda: CaptchaDataLoaders.from_folder(mixed, skip_bad=True, **kw)),
                     ('from_csv, skip_bad', lambda: CaptchaDataLoaders.from_csv(home, 'all.csv', folder='mixed', skip_bad=True, **{k:v for k,v in kw.items() if k != 'label_func'}))):
        with warnings.catch_warnings(record=True) as ws:
            warnings.simplefilter('always')
            dls = make()
        told = [str(w.message) for w in ws if 'left out' in str(w.message)]
        count(way, sorted(f.name for f in dls.tfm.files) == sorted(good) and len(told) == 1, f'{len(dls.tfm.files)} of {len(good)}, said {told}')
    texts = {name: one(ways.reader.read, mixed/name) for name in names}
    for way,reader in (('captcha-read', home/'reader'), ('captcha-read, ONNX', home/'reader.onnx')):
        status,_,err = call(reader_cli.read, reader, mixed, '--csv', home/'read.csv')
        _,table = read_table(home/'read.csv')
        ok = status == 3 and len(table) == n and all((r[4] == '') == isinstance(t := texts[Path(r[0]).name], tuple) and (r[4] != '' or r[1] == t[0]) for r in table) and all(map(clear, err.splitlines()))
        count(way, ok, err[-300:])
    def submit(ids):
        (home/'sample.csv').write_text('Id,Label\n' + ''.join(f'{o},\n' for o in ids)); (home/'out.csv').unlink(missing_ok=True)
        return call(reader_cli.submit, home/'reader', mixed, '--sample', home/'sample.csv', '-o', home/'out.csv')
    status,_,err = submit(names); count('captcha-submit, bad ones among them', status == 1 and clear(err.strip().splitlines()[-1]) and not (home/'out.csv').exists(), err)
    status,_,err = submit(good); count('captcha-submit, good ones', status == 0 and [r[1] for r in read_table(home/'out.csv')[1]] == [texts[o][0] for o in good], err)
    status,_,err = call(reader_cli.export, home/'reader', home/'small.onnx', '--quantize', mixed); count('captcha-export --quantize', status == 1 and clear(err.strip().splitlines()[-1]) and not (home/'small.onnx').exists(), err)
    status,_,err = call(demo, '--data', mixed, '--out', home/'demo.png', '--epochs', 1); count('captcha-demo --data', status == 1 and clear(err.strip().splitlines()[-1]) and not (home/'demo.png').exists(), err[-300:])
    (mixed/'labels.csv').write_text(''.join(map(csv_line, [('file','label'), *names.items()])))
    status,_,err = call(synth_cli.main, 'pack', home/'packed', '-n', n, '--source', mixed); count('captcha-synth pack --source', status == 1 and clear(err.strip().splitlines()[-1]), err[-300:]); (mixed/'labels.csv').unlink()
    (home/'all_here.csv').write_text(''.join(map(csv_line, [('file','text'), *((f'{mixed.name}/{k}', v) for k,v in names.items())])))
    for way,words,want in (('captcha-train', ['--epochs','1'], 1), ('captcha-train --skip-bad', ['--epochs','1','--skip-bad'], 0)):
        status,_,err = call(reader_cli.train, home/'all_here.csv', '-o', home/'trained', '--size', '32x80', *words)
        count(way, status == want and (want == 0 or clear(err.strip().splitlines()[-1])) and (home/'trained'/'reader.json').exists() == (want == 0), err[-300:])
    return counts

# names, links, rights

def odd_files(folder):
    "Files whose names or kinds are odd, and whether each is an image"
    good,name = {},lambda b: os.path.join(os.fsencode(folder), b)
    data = saved(picture(1)[0], 'PNG')
    for b in ['😀.png'.encode(), 'e\u0301é.png'.encode(), b'\xff\xfe.png', b'Ab.png', b'aB.png', b'=1+1.png', b'-o.png', b"it's.png", b'two\nlines.png', b'a b.PNG', ('字'*83).encode()+b'.png', b'x'*250+b'.png', b'%2e%2e.png', b'$(id).png']:
        with open(name(b), 'wb') as f: f.write(data)
        good[b] = True
    os.symlink('nowhere.png', name(b'dangling.png')); good[b'dangling.png'] = None # no file: folders don't list it
    os.symlink('loop.png', name(b'loop.png')); good[b'loop.png'] = None
    os.mkfifo(name(b'pipe.png')); good[b'pipe.png'] = None
    os.mkdir(name(b'folder.png')); good[b'folder.png'] = None
    os.symlink('/dev/zero', name(b'endless.png')); good[b'endless.png'] = None
    with open(name(b'locked.png'), 'wb') as f: f.write(data)
    os.chmod(name(b'locked.png'), 0); good[b'locked.png'] = False
    os.symlink('Ab.png', name(b'link.png')); good[b'link.png'] = True
    return {Path(os.fsdecode(name(b))):ok for b,ok in good.items()}

@contextlib.contextmanager
def nobody():
    "As a user without rights, where we are root"
    if os.geteuid(): yield; return
    os.seteuid(65534)
    try: yield
    finally: os.seteuid(0)

def names(home, ways=None):
    "Odd files, one by one and as a folder"
    ways = ways or Ways(home)
    folder = home/'odd'; folder.mkdir(); os.chmod(home, 0o755); os.chmod(folder, 0o755)
    counts,bad = Counter(),[]
    files = odd_files(folder)
    want = one(ways.reader.read, saved(picture(1)[0], 'PNG'))
    for f,ok in files.items():
        for way,read in (('predict', ways.predict), ('reader', ways.reader.read), ('onnx', ways.onnx.read), ('list', lambda f: ways.reader.read([f])[0])):
            with nobody() if ok is False else contextlib.nullcontext(): found = one(read, f)
            fine = same_reading(found, want) if ok else isinstance(found, str) and clear(found)
            counts['right' if fine else 'wrong'] += 1
            if not fine: bad.append(f'{f.name!r}, {way}: {found}')
    for way,read in (('read_folder', lambda: ways.reader.read_folder(folder)), ('from_folder', lambda: CaptchaDataLoaders.from_folder(folder, skip_bad=True, seed=0, bs=2, valid_pct=.3, num_workers=0))):
        with at_most(60), warnings.catch_warnings(record=True), nobody(): got = read()
        n = int((got.error.isna()).sum()) if way == 'read_folder' else len(got.tfm.files)
        expect = sum(o is True for o in files.values()) - 2*(way == 'from_folder') # a name that is not UTF-8 and one of two lines are images, but no labels
        counts['right' if n == expect else 'wrong'] += 1
        if n != expect: bad.append(f'{way}: {n} instead of {expect}')
    def count(way, ok, why):
        counts['right' if ok else 'wrong'] += 1
        if not ok: bad.append(f'{way}: {why}')
    out = home/'out'; out.mkdir(); os.chmod(out, 0o777)
    for o in (home/'reader', *(home/'reader').iterdir(), home/'reader.onnx'): os.chmod(o, 0o755)
    for way,reader in (('captcha-read', home/'reader'), ('captcha-read, ONNX', home/'reader.onnx')):
        with at_most(60), nobody(): status,_,err = call(reader_cli.read, reader, folder, '--csv', out/f'{reader.name}.csv')
        rows = read_table(out/f'{reader.name}.csv')[1]
        count(way, status == 3 and all(map(clear, err.splitlines())) and Counter(r[1] if r[4] == '' else None for r in rows) == {want[0]: sum(o is True for o in files.values()), None: 1}, err or rows)
    texts = [f.name for f,ok in files.items() if ok and printable(f.name) == f.name or f.name == 'two\nlines.png'] # a table is UTF-8
    (home/'odd.csv').write_text(''.join(map(csv_line, [('file','text'), *((o,'12') for o in texts)])))
    with at_most(60): dls = CaptchaDataLoaders.from_csv(home, 'odd.csv', folder='odd', seed=0, bs=2, valid_pct=.3, num_workers=0, size=(32,80))
    count('from_csv', sorted(f.name for f in dls.tfm.files) == sorted(texts), dls.tfm.files)
    for f,ok in files.items():
        if ok: count(f'{f.name!r}, api', same_reading(found := ways.api(printable(f.name), saved(picture(1)[0], 'PNG')), want), found)
    return dict(files=len(files), answers=dict(counts), wrong=bad)

# tables

def tables(n, home):
    "Seeded damage to a table of labels: an error that names the row or column, or exactly the labels"
    folder = home/'tables'; folder.mkdir()
    want = dict(zip('abcdef', ['007','=1+1','-12','@x',"'=y",'a,"b']))
    for k,o in enumerate(want): (folder/f'{o}.png').write_bytes(saved(picture(k)[0], 'PNG'))
    counts,bad = Counter(),[]
    for i in range(n):
        r = random.Random(f'table {i}')
        rows = [['file','text'], *([f'{k}.png', v] for k,v in want.items())]
        what = r.choice(['plain','BOM','semicolons','tabs','spaces','no header','cut','bits','ragged','double column','twice','empty label','no such file','UTF-16','Latin-1','quote','old line ends','empty lines'])
        wrong = what in ('ragged','double column','twice','empty label','no such file','UTF-16','Latin-1','quote','no header')
        if what == 'ragged': r.choice(rows).append('x') if r.random() < .5 else r.choice(rows).pop()
        if what == 'double column': rows = [[*o, 'text' if o is rows[0] else 'z'] for o in rows]
        if what == 'twice': rows.append([rows[1][0], 'other'])
        if what == 'empty label': r.choice(rows[1:])[1] = ''
        if what == 'no such file': r.choice(rows[1:])[0] = 'none.png'
        if what == 'no header': rows = rows[1:]; rows.append(['g.png', 'x'])
        sep = {'semicolons':';', 'tabs':'\t'}.get(what, ',')
        b = io.StringIO(); w = csv.writer(b, delimiter=sep, lineterminator=r.choice(['\n','\r\n']))
        w.writerows([[safe_cell(c) for c in o] for o in rows])
        text = b.getvalue()
        if what == 'BOM': text = '\ufeff'+text
        if what == 'spaces': text = '\n'.join(l.replace(sep, sep+' ', 1) for l in text.splitlines())
        if what == 'quote': text += '"x'
        if what == 'old line ends': text = text.replace('\r\n', '\n').replace('\n', '\r')
        if what == 'empty lines': text = text.replace('\n', '\n\n')
        if what == 'Latin-1': text += 'é.png,x\n'
        data = bytearray(text.encode({'UTF-16':'utf-16', 'Latin-1':'latin-1'}.get(what, 'utf-8')))
        if what == 'cut': data = data[:r.randrange(len(data))]; wrong = None
        if what == 'bits': data[r.randrange(len(data))] ^= 1 << r.randrange(8); wrong = None
        (folder/'labels.csv').write_bytes(data)
        try:
            with at_most(60), warnings.catch_warnings(record=True): dls = CaptchaDataLoaders.from_csv(folder, seed=0, bs=2, valid_pct=.3, num_workers=0, size=(32,80))
            got = {f.stem:l for f,l in zip(dls.tfm.files, dls.tfm.labels)}
            verdict = 'right' if got == want else 'fewer or other labels, as the file says' if wrong is None else f'wrong: {got}'
            if wrong: verdict = f'no error: {got}'
        except (ValueError,FileNotFoundError) as e: verdict = 'error' if wrong is not False and clear(str(e)) else f'wrong: {e}'
        except Exception as e: verdict = f'wrong: {type(e).__name__} {e}'
        counts[verdict if verdict in ('right','error','fewer or other labels, as the file says') else 'wrong'] += 1
        if counts['wrong'] > len(bad): bad.append(f'{i} {what}: {verdict}')
    return dict(n=n, answers=dict(counts), wrong=bad)

# kills

def online(folder):
    "A training with online data, two workers, augmentation and dropout, checkpoints after every batch"
    set_seed(0, reproducible=True)
    dls = CaptchaDataLoaders.from_synth(SynthCaptcha('0123', 3, (24,48), seed=1), n=160, valid=16, online=True, bs=8, num_workers=2)
    learn = captcha_learner(dls, nopool_xresnet, arch_args=dict(body=partial(small_resnet, widths=(8,8,8,8)), hidden=16))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(6, 3e-3, cbs=Resumable(folder, every=0))
    write_whole(folder/'end.pth', torch_bytes(dict(model=learn.model.state_dict(), values=[list(o) for o in learn.recorder.values])))

def torch_bytes(o): torch.save(o, b := io.BytesIO()); return b.getvalue()

def command(folder):
    "captcha-train, with a warm start from drawn captchas and two workers"
    data = folder.parent/'captchas'
    if not data.exists(): generate_folder(data, 60, SynthCaptcha('0123', 3, (32,64), seed=2), progress=False)
    Resumable.__init__.__defaults__ = (0.,) # a checkpoint after every batch, so that kills meet many
    return reader_cli.train([str(data), '-o', str(folder), '--epochs', '3', '--warm', '192', '--style', 'image_captcha', '--workers', '2', '--arch', 'dense_cnn', '--size', '48x96'])

trainings = dict(online=online, command=command)

def child(kind, folder):
    torch.set_num_threads(1)
    trainings[kind](Path(folder))

def start(kind, folder): return subprocess.Popen([sys.executable, __file__, '--child', kind, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)

def finished(kind, folder): return (folder/('end.pth' if kind == 'online' else 'reader.json')).exists()

def checkpoints(folder): return [*folder.rglob('fit-*.ckpt')]

def run_killed(kind, folder, kills, r, longest):
    "Kill at random moments, each while the training is under way, and start again until it ends; where the kills fell"
    fell = []
    while not finished(kind, folder):
        p,begun = start(kind, folder),None
        wait = r.uniform(0, longest)
        was = {f:f.stat().st_mtime_ns for f in checkpoints(folder)}
        while p.poll() is None:
            if begun is None and {f:f.stat().st_mtime_ns for f in checkpoints(folder)} != was: begun = time.monotonic()
            if begun is not None and len(fell) < kills and time.monotonic() >= begun+wait:
                os.killpg(p.pid, signal.SIGKILL); p.wait(); break
            time.sleep(.002)
        err = p.stderr.read().decode(); p.stderr.close()
        if p.returncode == -signal.SIGKILL:
            s = read_checkpoint(max(checkpoints(folder), key=lambda f: f.stat().st_mtime_ns))
            fell.append(dict(fit=len(checkpoints(folder)), epoch=s['epoch'], batch=s['batch'], unfinished_file=any(o.name.endswith('.tmp') for o in folder.rglob('.*'))))
            print(kind, 'killed', fell[-1], flush=True)
        elif p.returncode: raise RuntimeError(err[-2000:])
    return fell

def end_of(kind, folder):
    if kind == 'online': return torch.load(folder/'end.pth', weights_only=True)
    return {o: (folder/o).read_bytes() for o in ('model.safetensors','reader.json','curve.png')}

def same(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list,tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b

def kills(home, n, which=('online','command')):
    rows = []
    for kind in which:
        whole,killed = home/f'{kind}-whole'/'t',home/f'{kind}-killed'/'t'
        for o in (whole,killed): o.mkdir(parents=True)
        run_killed(kind, whole, 0, random.Random(0), 0)
        fell = run_killed(kind, killed, n, random.Random(f'kills {kind}'), 2.)
        rows.append(dict(training=kind, kills=len(fell), fell=fell, bit_identical=same(end_of(kind, whole), end_of(kind, killed))))
        print({k:v for k,v in rows[-1].items() if k != 'fell'}, flush=True)
    return rows

# a full disk

@contextlib.contextmanager
def small_disk(folder, megabytes):
    "A tmpfs where one may be mounted, else a limit on the size of files"
    folder.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={megabytes}m', 'tmpfs', str(folder)], capture_output=True).returncode == 0:
        try: yield 'tmpfs'
        finally: subprocess.run(['umount', str(folder)], check=True)
    else: yield None

def disk(home):
    "A training on a disk of 3 MB that something else fills"
    with small_disk(home/'disk', 3) as kind:
        if kind is None: return dict(kind=None)
        set_seed(0)
        dls = CaptchaDataLoaders.from_synth(SynthCaptcha('0123', 3, (24,48), seed=1), n=64, valid=16, bs=8)
        learn = captcha_learner(dls, nopool_xresnet, arch_args=dict(body=partial(small_resnet, widths=(8,8,8,8)), hidden=16))
        class Fill(Callback):
            def after_batch(self):
                if self.training and self.train_iter == 4: # fastai counts before this
                    with contextlib.suppress(OSError), open(home/'disk'/'other', 'wb') as f:
                        while True: f.write(bytes(4096)); f.flush()
        with learn.no_bar(), learn.no_logging(), warnings.catch_warnings(record=True) as ws:
            warnings.simplefilter('always')
            learn.fit(1, cbs=[Fill, Resumable(home/'disk'/'run', every=0)])
        told = [str(w.message) for w in ws if 'checkpoint' in str(w.message)]
        s = read_checkpoint(home/'disk'/'run'/'fit-0.ckpt')
        (home/'disk'/'other').unlink()
        left = [o.name for o in (home/'disk'/'run').iterdir()]
        return dict(kind=kind, warnings=len(told), first=told[0].replace(str(home), '…'), last_good=dict(epoch=s['epoch'], batch=s['batch']), files=left)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('campaigns', nargs='*', default=['images','names','tables','kills','disk'])
    p.add_argument('--n', type=int, default=1120); p.add_argument('--kills', type=int, default=10); p.add_argument('--trainings', nargs='*', default=list(trainings), help='those to kill (default: %(default)s)'); p.add_argument('--child', nargs=2, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child: return child(*args.child)
    torch.set_num_threads(1)
    file = results/'reliability.json'
    for c in args.campaigns:
        start_ = time.time()
        with tempfile.TemporaryDirectory() as tmp:
            home = Path(tmp)
            new = dict(images=lambda: images(args.n, home), names=lambda: names(home), tables=lambda: tables(400, home), kills=lambda: dict(rows=kills(home, args.kills, args.trainings)), disk=lambda: disk(home))[c]()
        if c == 'kills': new['rows'] += [o for o in load_json(file, {}).get(c, {}).get('rows', []) if o['training'] not in args.trainings]
        save_json(file, {**load_json(file, {}), c: dict(new, minutes=round((time.time()-start_)/60, 1), **where('pillow'))})
        print(c, {k:v for k,v in new.items() if k not in ('kinds','rows')}, flush=True)

if __name__ == '__main__': main()
