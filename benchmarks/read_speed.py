"""From PNG bytes to text: milliseconds for one image, images per second for a folder of 2,000, memory and the time to the first text, beside ddddocr 1.6.1.

    pip install ddddocr==1.6.1                       # optional; without it, its rows are left out
    python read_speed.py [READER…]                   # folders of readers; by default the final rows' that `crossval.py` keeps in cache/readers

All readers take turns on the same images of captcha_images_v2 in one run, each in a process of its own with all cores, and medians count; run it on a quiet machine. A folder of a reader is read by torch, by onnxruntime, and by onnxruntime in 8 bits.
Accuracy stands in columns of its own: zero-shot, of readers that have never seen these captchas, on all 1040; fine-tuned, of those that were trained on some, on the images that they have not seen (`READER.json` names them).
`--threads` is for the readers of this library only: ddddocr's runtime takes all cores, whatever the process may use."""
import json, os, subprocess, sys, tempfile
from statistics import median
from captcha_fastai.all import *
from captcha_fastai.onnx_reader import OnnxReader
from captcha_fastai.recipes import crossval
from fitting import *

peer = 'ddddocr'

class Peer:
    "ddddocr, with the model that it takes unless told otherwise, or with its newer one; `start` is what a process does before it reads."
    def __init__(self, beta=False):
        import ddddocr
        self.ocr = ddddocr.DdddOcr(show_ad=False, beta=beta)
        self.start = f'import ddddocr\no = ddddocr.DdddOcr(show_ad=False, beta={beta})\nread = o.classification\nmany = lambda fs: [read(f.read_bytes()) for f in fs]'
    def many(self, files, allowed=None):
        if allowed: self.ocr.set_ranges(allowed)
        return [self.ocr.classification(o.read_bytes()) for o in files]
    def megabytes(self): return Path(self.ocr.ocr_engine.session._model_path).stat().st_size/1e6

class Ours:
    "A reader of this library, and what a process does before it reads."
    def __init__(self, reader, start): self.reader,self.start = reader,start+'\nread = lambda o: r.read(o).text\nmany = lambda fs: [o.text for o in r.read(fs, progress=False)]'
    def many(self, files, allowed=None): return [o.text for o in self.reader.read(files, allowed=allowed, progress=False)]

def forms(folder, tmp, threads, images):
    "The forms of the reader in `folder`, by name: object, file or folder, and megabytes."
    name = folder.name
    at,r = {'': folder, ', ONNX': tmp/f'{name}.onnx', ', ONNX in 8 bits': tmp/f'{name}-8.onnx'},CaptchaReader.load(folder, 'cpu')
    for form,quantize in ((', ONNX', False), (', ONNX in 8 bits', images)): r.to_onnx(at[form], quantize)
    out = {}
    for form,file in at.items():
        cls,mod,more = ('OnnxReader','onnx_reader',f', {threads}') if form else ('CaptchaReader','inference',", 'cpu'")
        start = ('' if form or not threads else f'import torch; torch.set_num_threads({threads})\n') + f'from captcha_fastai.{mod} import {cls}\nr = {cls}({str(file)!r}{more})'
        if not form: start = start.replace(f'{cls}({str(file)!r}', f'{cls}.load({str(file)!r}')
        size = (file if form else file/'model.safetensors').stat().st_size
        out[name+form] = Ours(OnnxReader(file, threads) if form else r, start),size/1e6
    return out

def base_reader():
    "The reader that comes with the package, if its weights do."
    try: return {'captcha_base, as it ships': (Ours(CaptchaReader.base('cpu'), 'from captcha_fastai.inference import CaptchaReader\nr = CaptchaReader.base("cpu")'), base_file.stat().st_size/1e6)}
    except FileNotFoundError: return {}

def peer_reader():
    try:
        import importlib.metadata as m
        return {f"{peer} {m.version(peer)}{', beta'*beta}": ((o := Peer(beta)), o.megabytes()) for beta in (False, True)}
    except ImportError as e:
        print(f'{peer} is left out: {e}', flush=True)
        return {}

loop = '''
import json, pathlib, sys, time
for line in sys.stdin:
    what,files = json.loads(line)
    files,taken = [pathlib.Path(o) for o in files],[]
    for o in [f.read_bytes() for f in files] if what == 'one' else [files]:
        start = time.perf_counter()
        read(o) if what == 'one' else many(o)
        taken.append(time.perf_counter()-start)
    print(json.dumps(taken), flush=True)
'''

class Apart:
    "A reader in a process of its own: threads that wait busily for their next work would take the cores of others."
    def __init__(self, reader): self.start,self.p = reader.start,subprocess.Popen([sys.executable, '-c', reader.start+loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    def ask(self, what, files):
        "Seconds of each image if `what` is 'one', or of all of them in one go."
        print(json.dumps([what, [*map(str, files)]]), file=self.p.stdin, flush=True)
        while not (line := self.p.stdout.readline()).startswith('['):
            if not line: raise RuntimeError(f'a process that only reads has ended:\n{self.start}')
        return json.loads(line)

def alternate(apart, what, files, rounds):
    "Seconds of each reader in all rounds but the first; they take turns."
    out = {k: [] for k in apart}
    for i in range(rounds+1):
        for k,o in apart.items():
            new = o.ask(what, files)
            if i: out[k] += new
    return out

def latency(apart, files, rounds):
    "Milliseconds for one image: medians of all images in all rounds, which are read one by one from memory."
    return {k: dict(ms=round(1000*median(o), 3), p95_ms=round(1000*sorted(o)[int(.95*len(o))], 3)) for k,o in alternate(apart, 'one', files, rounds).items()}

def folder_speed(apart, files, rounds): return {k: round(len(files)/median(o), 1) for k,o in alternate(apart, 'many', files, rounds).items()}

tail = '''
import sys, pathlib
files = [pathlib.Path(o) for o in sys.argv[1:]]
print(read(files[0].read_bytes()), flush=True)
for o in files: read(o.read_bytes())
print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))
''' # the kernel's own figure, of this program alone: that of `getrusage` begins with its parent's

def started(reader, files):
    "A process that reads: seconds from its start to the first text, and its largest memory in MB after all `files` (Linux)."
    at = time.perf_counter()
    p = subprocess.Popen([sys.executable, '-c', reader.start+tail, *map(str, files)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdout.readline()
    first = time.perf_counter()-at
    rest = p.communicate()[0]
    if p.returncode: raise RuntimeError(f'a process that only reads has failed:\n{reader.start}')
    return first, int(rest)/1024

def starting(readers, files, rounds):
    seen = {k: [] for k in readers}
    for _ in range(rounds):
        for k,(r,_) in readers.items(): seen[k].append(started(r, files))
    return {k: dict(first_text_s=round(median(a for a,_ in o), 3), peak_mb=round(max(b for _,b in o))) for k,o in seen.items()}

def right(texts, files, fold=False):
    k = sum((t.casefold() if fold else t) == f.stem for t,f in zip(texts, files))
    low,high = wilson(k, len(files))
    return dict(right=k, n=len(files), captcha_accuracy=round(100*k/len(files), 2), low=low, high=high)

def main():
    p = parser(__doc__, 'read_speed')
    p.add_argument('readers', nargs='*', type=Path, metavar='READER', help='folders that hold a reader, beside FOLDER.json with the names of the images that it has not seen')
    args = parsed(p, 'read_speed')
    if args.threads and hasattr(os, 'sched_setaffinity'): os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:args.threads])
    folders = args.readers or [at for o in crossval['final'] if ((at := reader_of(o, args.short))/'reader.json').exists()]
    if not folders and not base_file.is_file(): p.error(f'there is no reader in {readers_in(args.short)}; run crossval.py first, or name the folders of readers')
    files = get_image_files(captcha_data('captcha_images_v2')).sorted()
    n,rounds,some = (40,1,5) if args.short else (2000,5,50)
    tests = {o.name: {'unseen': [], **load_json(o.parent/f'{o.name}.json', {})} for o in folders}
    with tempfile.TemporaryDirectory() as d:
        tmp = Path(d)
        readers,names = {},{}
        for o in folders:
            known = [f for f in files if f.name not in tests[o.name]['unseen']] # what 8 bits are fitted to
            new = forms(o, tmp, args.threads, known[:: max(1, len(known)//100)])
            readers |= new; names |= {k: o.name for k in new}
        readers |= base_reader() | peer_reader()
        copies = [tmp/'images'/f'{i:04d}.png' for i in range(n)]
        (tmp/'images').mkdir()
        for i,o in enumerate(copies): shutil.copy(files[i % len(files)], o)
        load = os.getloadavg()
        apart = {k: Apart(r) for k,(r,_) in readers.items()}
        one = latency(apart, files[:: len(files)//some], rounds); print(one, flush=True)
        many = folder_speed(apart, copies, max(1, rounds//2)); print(many, flush=True)
        for o in apart.values(): o.p.communicate()
        begin = starting(readers, copies[:100], rounds); print(begin, flush=True)
        rows = []
        for k,(r,mb) in readers.items():
            seen = names.get(k)
            test = [f for f in files if f.name in tests[seen]['unseen']] if seen else files[:n]
            texts = r.many(test) if test else []
            row = dict(reader=k, row=tests[seen].get('row') if seen else None, **one[k], images_per_second=many[k], **begin[k], megabytes=round(mb, 2))
            if test: row |= {'fine_tuned': right(texts, test)} if seen else {'zero_shot': right(texts, test), 'zero_shot_folded': right(texts, test, fold=True)}
            if not seen: row['zero_shot_alphabet_given'] = right(r.many(test, ''.join(sorted(set(''.join(f.stem for f in files))))), test)
            rows.append(row)
            print({a:b for a,b in row.items() if a in ('reader','fine_tuned','zero_shot')}, flush=True)
    save_json(args.out, dict(rows=rows, data='captcha_images_v2', folder=n, rounds=rounds, seed=0, load_average=load, cores=len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(), **made(), peers=where('onnxruntime','ddddocr')['versions']))

if __name__ == '__main__': main()
