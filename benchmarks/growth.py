"""How time, memory and accuracy grow: with the size of the images, the length of the texts, the alphabet, and the number of labelled images.

    python growth.py --bf16 --threads 1 [size length alphabet labels …]
    python growth.py alphabet --fonts NotoSansCJK-Regular.ttc      # the 3,500 Chinese characters need a font that has them

Every point is a training of its own in a process of its own, so its memory is its own: `nopool_xresnet` and `crnn` on the small body that all recipes start from, fresh captchas of `ImageCaptcha` (60×160 pixels, 4 of 36 characters unless it is that
which grows), as many samples at every point, read on 500 that nothing has seen. The time of an image is without the drawing of it. Labelled images are a fixed set of drawn captchas, a fifth of them to validate, with the variation
that the library has for few or many, and for all of them 500 steps of 32, so few images are seen often; `nopool_xresnet` only.
A script that is stopped goes on with the next point, and points of another body are made again."""
import json, string, subprocess, sys
from captcha_fastai.recipes import crossval
from captcha_fastai.all import *
from fitting import *

ascii94 = string.digits+string.ascii_uppercase+string.ascii_lowercase+string.punctuation

def chinese(n=3500):
    "The first `n` characters of the first level of GB 2312, in its order."
    return ''.join(bytes((row, col)).decode('gb2312') for row in range(0xb0, 0xd8) for col in range(0xa1, 0xff) if (row, col) < (0xd7, 0xfa))[:n]

archs = {'nopool_xresnet': dict(body='small_resnet', hidden=512), 'crnn': dict(body='small_resnet')}
usual = dict(size=(60,160), length=4, chars=ascii94[:36])
points = dict(
    size=[dict(size=(h, round(h*8/3))) for h in (45, 60, 75, 90)], # smaller ones have too few columns for the CRNN
    length=[dict(length=n, size=(60, 40*max(n, 2))) for n in (1, 2, 4, 8, 12)],
    alphabet=[dict(chars=ascii94[:n]) for n in (10, 36, 62, 94)] + [dict(chinese=3500)],
    labels=[dict(n_labelled=n) for n in (50, 100, 200, 500, 1000, 2000, 5000, 10_000)])

def warm_body(args):
    "A file with the body that the recipes start from, named by its recipe."
    r = whole(dict(crossval['rows']['crnn'], pretrain=None), args.short, args.bf16)
    file = kept_in(args.short)/f"growth-body-{digest([r['body'], r['size'], r['bf16']])}.pth"
    if not file.exists():
        files = get_image_files(captcha_data(crossval['data'])).sorted()
        learn,_ = warm_learner(make_loaders(files[0].parent, r, RandomSplitter(seed=0), files), r, 0)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({k: v for k,v in learn.model.state_dict().items() if k.startswith('body.')}, file)
    return str(file)

def source(o, seed, fonts=None):
    o = {**usual, **o}
    return SynthCaptcha(chinese(o['chinese']) if 'chinese' in o else o['chars'], o['length'], o['size'], 'image_captcha', seed, fonts=fonts)

def samples(short): return 128 if short else 8000

class StepTime(Callback):
    "Seconds of the processor from a batch that is there to the end of its step."
    def __init__(self): self.spent,self.images = 0.,0
    def before_batch(self): self.begun = time.process_time()
    def after_batch(self):
        if self.training: self.spent,self.images = self.spent+time.process_time()-self.begun,self.images+len(self.y)

def point(kind, o, arch, args):
    "One training: what it took, and what it reads."
    set_seed(0, reproducible=True)
    synth,n,test = source(o, 'growth', args['fonts']),samples(args['short']),64 if args['short'] else 500
    if kind == 'labels':
        n = min(o['n_labelled'], n) if args['short'] else o['n_labelled']
        items = [synth[i] for i in range(n)]
        dls = CaptchaDataLoaders.from_lists('.', *map(list, zip(*items)), seed=0, bs=32, repeat=1, vocab=''.join(synth.chars), max_len=synth.length[1])
        epochs = 1 if args['short'] else round(500/len(dls.train))
    else: dls,epochs = CaptchaDataLoaders.from_synth(synth, n, test, bs=64),1
    learn,step = make_learner(dls, arch, archs[arch], bf16=args['bf16']),StepTime()
    learn.model.load_state_dict({**learn.model.state_dict(), **torch.load(args['body'], weights_only=True)})
    start = time.process_time(),time.time()
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, 3e-3, cbs=[step, ValidateAtEnd()])
    cpu,wall = time.process_time()-start[0],time.time()-start[1]
    fresh = source(o, 'growth, test', args['fonts'])
    images,labels = zip(*(fresh[i] for i in range(test)))
    reader = CaptchaReader.from_learner(learn)
    start = time.process_time()
    texts = [r.text for r in reader.read(list(images), progress=False)]
    read_ms = 1000*(time.process_time()-start)/test
    peak = int(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))//1024 # of this process alone
    return dict(kind=kind, **({} if kind == 'labels' else dict(captchas=n)), **{k: (list(v) if isinstance(v, tuple) else v) for k,v in o.items()}, arch=arch, n_class=len(dls.vocab), samples=step.images, parameters=sum(p.numel() for p in learn.model.parameters()), cpu_minutes=round(cpu/60, 2), minutes=round(wall/60, 2),
                step_ms=round(1000*step.spent/step.images, 3), read_ms=round(read_ms, 3), peak_mb=peak, **score(pd.DataFrame(dict(label=labels, text=texts))), seed=0, bf16=args['bf16'], body=Path(args['body']).stem, **made())

if __name__ == '__main__':
    p = parser(__doc__, 'growth')
    p.add_argument('kinds', nargs='*', default=list(points), metavar='KIND', help=f"which of {', '.join(points)} (default: all)")
    p.add_argument('--arch', nargs='*', default=list(archs), choices=list(archs), help='architectures (default: both)')
    p.add_argument('--fonts', nargs='*', help='fonts for the Chinese characters; without any, that point is left out')
    p.add_argument('--point', help=argparse.SUPPRESS) # of a process for one point
    bf16_option(p)
    args = parsed(p, 'growth')
    if args.point:
        print('\n'+json.dumps(point(**json.loads(args.point))))
        sys.exit()
    for kind in args.kinds:
        if kind not in points: p.error(f"there is no {kind!r}; there are {', '.join(points)}")
    body = warm_body(args)
    for kind,o,arch in ((k, o, a) for k in args.kinds for o in (points[k][:2] if args.short else points[k]) for a in (['nopool_xresnet'] if k == 'labels' else args.arch)):
        key = json.loads(json.dumps(dict(kind=kind, **o, arch=arch, bf16=args.bf16, body=Path(body).stem, **({} if kind == 'labels' else dict(captchas=samples(args.short))))))
        rows = load_json(args.out, dict(rows=[]))['rows']
        if any(key.items() <= r.items() for r in rows): continue
        if 'chinese' in o and not args.fonts: print(f'{key}: left out, for it needs --fonts with a font that has these characters', flush=True); continue
        fonts = args.fonts if 'chinese' in o else None
        words = json.dumps(dict(kind=kind, o=o, arch=arch, args=dict(short=args.short, bf16=args.bf16, fonts=fonts, body=body)))
        done = subprocess.run([sys.executable, __file__, '--point', words, *(['--threads', str(args.threads)] if args.threads else [])], check=True, stdout=subprocess.PIPE, text=True)
        new = json.loads(done.stdout.splitlines()[-1])
        same = {k:v for k,v in key.items() if k not in ('body','bf16')}
        save_json(args.out, dict(rows=[r for r in load_json(args.out, dict(rows=[]))['rows'] if not same.items() <= r.items()] + [new]))
        print({k: new[k] for k in (*key, 'captcha_accuracy','step_ms','peak_mb','cpu_minutes')}, flush=True)
