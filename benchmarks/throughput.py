"""Training: images per second of a whole step for each architecture, in float32 and faster ways; loading beside the reference's way; and where the time goes.

    python throughput.py [steps|loading|parts|busy …] [--threads 1]

- `steps`: forward, loss, backward and optimizer on a batch that is there; all ways take turns, and the median counts.
- `loading`: whole passes over captcha_images_v2 without a network, the reference's pipeline (`plain_fastai.py`) and this library's, with and without variation; they take turns. Ratios mean something on a busy machine, too.
- `parts`: shares of an epoch's time by fastai's events, and PyTorch's own list of what took longest.
- `busy`: images per second with a loader against those with one batch again and again, from packed data: on a GPU, how busy the loader keeps it."""
import os, tempfile
from statistics import median
from captcha_fastai.all import *
from captcha_fastai.recipes import crossval
import plain_fastai
from fitting import *

archs = {**{k: (r['arch'], r['arch_args'], (50,200)) for k,r in crossval['rows'].items() if k in crossval['final']},
         'nopool_xresnet, xresnet34': ('nopool_xresnet', {}, (50,200)), 'multihead_xresnet, xresnet34': ('multihead_xresnet', {}, (50,200)), 'crnn, resnet34': ('crnn', {}, (50,200)),
         'captcha_base': ('captcha_base', {}, (50,200)), 'compact_cnn': ('compact_cnn', dict(norm=True), (46,284)), 'dense_cnn': ('dense_cnn', dict(norm=True), (46,284)),
         'resnet_transformer': ('resnet_transformer', {}, (64,192)), 'resnet_heads': ('resnet_heads', {}, (72,96))}
ways = {'float32, contiguous': dict(channels_last=False), 'float32': {}, 'bfloat16': dict(bf16=True), 'bfloat16, compiled': dict(bf16=True, compiled=True), "bfloat16, fastai's Adam": dict(bf16=True, opt_func=Adam)} # images last in channels unless said
vocab,length = Vocab('2345678bcdefgmnpwxy'),5

def device(): return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
def wait():
    if torch.cuda.is_available(): torch.cuda.synchronize()

def trainer(arch, args, size, channels_last=True, bf16=False, compiled=False, opt_func=FusedAdam):
    "A function that makes a training step on a batch."
    f,dev = globals()[arch],device()
    form = dict(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    set_seed(0, reproducible=True)
    model = f(len(vocab), length, size, **args).to(dev, **form).train()
    loss,opt = loss_types[arch_meta[f]['head']](vocab),opt_func(params(model), 1e-4)
    run = torch.compile(model) if compiled else model
    def step(x, y):
        with torch.autocast(dev.type, torch.bfloat16, enabled=bf16): out = run(x.as_subclass(Tensor).contiguous(**form))
        loss(out.float(), y).backward()
        opt.step(); opt.zero_grad()
    return step

def noise(size, bs): return torch.randn(bs, 3, *size, device=device()), TensorCaptcha(torch.randint(1, len(vocab), (bs,length), device=device()))

def per_second(fs, n, rounds, may_fail=()):
    "Median of `n` images a second of wall and of processor for each function, which take turns; the first round doesn't count, and of those that `may_fail` the error is kept."
    seen,failed = {k: [] for k in fs},{}
    for i in range(rounds+1):
        for k,f in fs.items():
            if k in failed: continue
            wait(); start = time.perf_counter(),time.process_time()
            try: f()
            except Exception as e: # as where there is no compiler
                if k not in may_fail: raise
                failed[k] = f'{type(e).__name__}: {(str(e) or " ").splitlines()[0][:120]}'
                continue
            wait()
            if i: seen[k].append((time.perf_counter()-start[0], time.process_time()-start[1]))
    return {k: dict(error=failed[k]) if k in failed else dict(per_second=round(n/median(w for w,_ in o), 1), per_cpu_second=round(n/median(c for _,c in o), 1)) for k,o in seen.items()}

def steps(args):
    rows,n,rounds = [],*((1,1) if args.short else (2,3))
    for name,(arch,kw,size) in list(archs.items())[:2 if args.short else None]:
        fs = {}
        for way,o in ways.items():
            step,batch = trainer(arch, kw, size, **o),noise(size, args.bs)
            fs[way] = lambda step=step, batch=batch: [step(*batch) for _ in range(n)]
        for way,o in per_second(fs, n*args.bs, rounds, [way for way,o in ways.items() if o.get('compiled')]).items():
            rows.append(dict(arch=name, way=way, size=list(size), bs=args.bs, **o))
            print(rows[-1], flush=True)
    return rows

class Labelled:
    "Files as a source for `pack`."
    def __init__(self, files): self.files,self.items = files,[(o.name, o.stem) for o in files]
    def __len__(self): return len(self.files)
    def __getitem__(self, i): return open_image(self.files[i]), self.files[i].stem

def real_files(args): return get_image_files(captcha_data('captcha_images_v2')).sorted()[:64 if args.short else None]

def loading(args):
    "Passes over all images by each loader, in turns; the ratio is to the reference's pipeline with its variation."
    files = real_files(args)
    every,r,bs = list(range(len(files))),crossval['rows']['nopool_xresnet'],plain_fastai.bs
    splits = every,every[:8]
    packed = pack(args.tmp/'packed', Labelled(files), progress=False)
    def reference(augment): return plain_fastai.loaders(files, splits, train_augment=augment, device='cpu').train
    def ours(bs, augment={}): return make_loaders(files[0].parent, dict(r, bs=bs, augment=augment), lambda _: splits, files, num_workers=0, device='cpu', drop_last=False).train
    def from_packed(bs): return CaptchaDataLoaders.from_packed(packed, splitter=lambda _: splits, bs=bs, device='cpu', drop_last=False).train
    dls = {'reference': reference(True), 'reference, no variation': reference(False), f'this library, batches of {bs}': ours(bs), f'this library, batches of {bs}, no variation': ours(bs, None),
           f"this library, batches of {r['bs']}": ours(r['bs']), f'this library, batches of {4*bs}': ours(4*bs), f'this library, packed, batches of {4*bs}': from_packed(4*bs)}
    found = per_second({k: (lambda dl=dl: [None for _ in dl]) for k,dl in dls.items()}, len(files), 1 if args.short else 5)
    first = found['reference']['per_cpu_second']
    rows = [dict(loader=k, bs=dls[k].bs, n=len(files), **o, ratio=round(o['per_cpu_second']/first, 2)) for k,o in found.items()]
    for o in rows: print(o, flush=True)
    return rows

class Parts(Callback):
    "Seconds of each part of a training, by fastai's events: what has passed since the last event belongs to the part that ends with this one."
    order = 200
    ends = dict(before_batch='loading and variation', after_pred='forward', after_loss='loss', after_backward='backward', after_step='optimizer', after_batch='callbacks')
    def __init__(self): self.seconds = {}
    def before_train(self): wait(); self.at = time.perf_counter()
    def __call__(self, event):
        if event in self.ends and self.training:
            wait(); now = time.perf_counter()
            part,self.at,start = self.ends[event],now,self.at
            self.seconds[part] = self.seconds.get(part, 0.)+now-start
        return super().__call__(event)

def parts(args):
    "For each architecture of the recipes: shares of the time of a training, and the operations that took longest."
    rows,files = [],real_files(args)
    every = list(range(len(files)))
    for name in crossval['final'][:1 if args.short else None]:
        r = crossval['rows'][name]
        learn = make_learner(make_loaders(files[0].parent, r, lambda _: (every,every[:8]), files), **{**r, 'bf16': args.bf16})
        clock = Parts()
        with learn.no_bar(), learn.no_logging():
            learn.fit(1, 1e-4)
            learn.fit(1, 1e-4, cbs=clock)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, *[torch.profiler.ProfilerActivity.CUDA]*torch.cuda.is_available()]) as prof:
                learn.fit(1, 1e-4, cbs=ShortEpochCallback(pct=.2))
        key = 'self_device_time_total' if torch.cuda.is_available() else 'self_cpu_time_total'
        ops,seconds = {o.key: getattr(o, key) for o in prof.key_averages()},sum(clock.seconds.values())
        rows.append(dict(arch=name, bs=r['bs'], bf16=args.bf16, images=len(files), seconds=round(seconds, 3), parts={k: round(100*v/seconds, 1) for k,v in clock.seconds.items()},
                         operations={k: round(100*ops[k]/sum(ops.values()), 1) for k in sorted(ops, key=ops.get, reverse=True)[:12]}))
        print(rows[-1], flush=True)
    return rows

def busy(args):
    "Training steps on batches from packed data, and as many on one batch again and again; their ratio is the share of its time that the network works."
    packed,rows = pack(args.tmp/'packed', Labelled(real_files(args)), progress=False),[]
    for name in crossval['final'][:1 if args.short else None]:
        r = crossval['rows'][name]
        dls = CaptchaDataLoaders.from_packed(packed, seed=0, bs=args.bs, num_workers=args.workers)
        dls.train.repeat(50 if torch.cuda.is_available() and not args.short else 1)
        step,(x,y) = trainer(r['arch'], r['arch_args'], r['size'], bf16=args.bf16),dls.train.one_batch()
        fs = {'with the loader': lambda: [step(*b) for b in dls.train], 'one batch': lambda: [step(x, y) for _ in range(len(dls.train))]}
        found = per_second(fs, len(dls.train)*args.bs, 1 if args.short else 2)
        rows.append(dict(arch=name, bs=args.bs, bf16=args.bf16, workers=args.workers, **{k: o['per_second'] for k,o in found.items()}, busy=round(100*found['with the loader']['per_second']/found['one batch']['per_second'], 1)))
        print(rows[-1], flush=True)
    return rows

kinds = dict(steps=steps, loading=loading, parts=parts, busy=busy)

if __name__ == '__main__':
    p = parser(__doc__, 'throughput')
    p.add_argument('kinds', nargs='*', default=list(kinds), metavar='KIND', help=f"which of {', '.join(kinds)} (default: all); the others stay as they are")
    p.add_argument('--bs', type=int, default=16, help='images in a batch (default: 16, as in the recipes)')
    p.add_argument('--workers', type=int, default=min(16, defaults.cpus) if torch.cuda.is_available() else 0, help='processes that load, for `busy`')
    bf16_option(p)
    args = parsed(p, 'throughput')
    for kind in args.kinds:
        if kind not in kinds: p.error(f"there is no {kind!r}; there are {', '.join(kinds)}")
    for kind in args.kinds:
        with tempfile.TemporaryDirectory() as d:
            args.tmp,load = Path(d),os.getloadavg()
            new = dict(rows=kinds[kind](args), seed=0, load_average=load, **made())
        save_json(args.out, {**load_json(args.out, {}), kind: new})
