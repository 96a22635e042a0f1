"""Training: images per second of a whole step for each architecture, in float32 and faster ways; loading beside the reference's way; and where the time goes.

    python throughput.py [steps|loading|parts|busy …] [--threads 1]

- `steps`: forward, loss, backward and optimizer on a batch that is there; all ways take turns, and the median counts.
- `loading`: whole passes over captcha_images_v2 without a network, the reference's pipeline (`plain_fastai.py`) and this library's, with and without variation; they take turns. Ratios mean something on a busy machine, too.
- `parts`: shares of an epoch's time by fastai's events, and PyTorch's own list of what took longest.
- `busy`: images per second with a loader against those with one batch again and again, from packed data: on a GPU, how busy the loader keeps it."""
import os, tempfile
from statistics import median
from captcha_fastai.all import *
from captcha_fastai.recipes import crossval, system_c, system_d
import plain_fastai
from fitting import *

archs = {**{k: (r['arch'], r['arch_args'], (50,200)) for k,r in crossval['rows'].items() if k in crossval['final']},
         'nopool_xresnet, xresnet34': ('nopool_xresnet', {}, (50,200)), 'multihead_xresnet, xresnet34': ('multihead_xresnet', {}, (50,200)), 'crnn, resnet34': ('crnn', {}, (50,200)),
         'captcha_base': ('captcha_base', {}, (50,200)), 'compact_cnn': ('compact_cnn', dict(norm=True), (46,284)), 'dense_cnn': ('dense_cnn', dict(norm=True), (46,284)),
         'resnet_transformer': ('resnet_transformer', {}, (64,192)), 'resnet_heads': ('resnet_heads', {}, (72,96))}
ways = {'float32, contiguous': dict(channels_last=False), 'float32': {}, 'bfloat16': dict(bf16=True), 'bfloat16, compiled': dict(bf16=True, compiled=True)} # images last in channels unless said
vocab,length = Vocab('2345678bcdefgmnpwxy'),5

def device(): return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
def wait():
    if torch.cuda.is_available(): torch.cuda.synchronize()

def stepper(arch, args, size, bs, channels_last=True, bf16=False, compiled=False):
    "A function that makes one training step on a batch of noise."
    f,dev = globals()[arch],device()
    form = dict(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    set_seed(0, reproducible=True)
    model = f(len(vocab), length, size, **args).to(dev, **form).train()
    loss,opt = loss_types[arch_meta[f]['head']](vocab),Adam(params(model), 1e-4)
    x,y = torch.randn(bs, 3, *size, device=dev).contiguous(**form),TensorCaptcha(torch.randint(1, len(vocab), (bs,length), device=dev))
    run = torch.compile(model) if compiled else model
    def step():
        with torch.autocast(dev.type, torch.bfloat16, enabled=bf16): out = run(x)
        loss(out.float(), y).backward()
        opt.step(); opt.zero_grad()
    return step

def per_second(fs, n, rounds):
    "Median of `n` images a second of wall and of processor for each function, which take turns; the first round, or an error, doesn't count."
    seen,failed = {k: [] for k in fs},{}
    for i in range(rounds+1):
        for k,f in fs.items():
            if k in failed: continue
            wait(); start = time.perf_counter(),time.process_time()
            try: f()
            except Exception as e: failed[k] = f'{type(e).__name__}: {str(e).splitlines()[0][:120] if str(e) else ""}'; continue
            wait()
            if i: seen[k].append((time.perf_counter()-start[0], time.process_time()-start[1]))
    return {k: dict(error=failed[k]) if k in failed else dict(per_second=round(n/median(w for w,_ in o), 1), per_cpu_second=round(n/median(c for _,c in o), 1)) for k,o in seen.items()}

def steps(args):
    rows,n,rounds = [],*((1,1) if args.short else (4,7))
    for name,(arch,kw,size) in list(archs.items())[:2 if args.short else None]:
        fs = {}
        for way,o in ways.items():
            step = stepper(arch, kw, size, args.bs, **o)
            fs[way] = lambda step=step: [step() for _ in range(n)]
        for way,o in per_second(fs, n*args.bs, rounds).items():
            rows.append(dict(arch=name, way=way, size=list(size), bs=args.bs, **o))
            print(rows[-1], flush=True)
    return rows

def passes(args):
    "Loaders whose passes are compared, and the number of images in one."
    files = get_image_files(captcha_data('captcha_images_v2')).sorted()[:64 if args.short else None]
    every = list(range(len(files)))
    splits,r,bs = (every,every[:8]),crossval['rows']['nopool_xresnet'],plain_fastai.bs
    ours = lambda bs, augment: make_loaders(files[0].parent, dict(r, bs=bs, augment=augment), lambda _: splits, files, num_workers=0, device='cpu', drop_last=False).train
    theirs = lambda augment: plain_fastai.loaders(files, splits, train_augment=augment)[0].to('cpu')
    packed = pack(Path(args.tmp)/'packed', [(f, f.stem) for f in files], progress=False) if False else None
    return {'reference, batches of 8': theirs(True), 'reference, batches of 8, no variation': theirs(False), 'this library, batches of 8': ours(8, {}), 'this library, batches of 8, no variation': ours(8, None),
            f"this library, batches of {r['bs']}": ours(r['bs'], {}), f"this library, batches of {args.bs}": ours(args.bs, {})}, len(files)
