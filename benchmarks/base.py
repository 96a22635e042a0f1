"""Pretraining of `captcha_base`: fresh drawn captchas of all styles, 1 to 8 of 0-9A-Za-z, any shape; read without a label by what comes out.

    python benchmarks/base.py --samples 2000000 --minutes 60 --threads 1          # and again, until it says that it is done
    python benchmarks/base.py --samples 2000000 --without line_blur competition   # styles that look like the two real sets left out
    python benchmarks/base.py --name longer --start WEIGHTS --seen 640000 --samples 2000000   # on from the weights that a finished run has shipped, with the captchas that come next
    python benchmarks/base.py --peer                                              # ddddocr on the same real captchas (pip install ddddocr==1.6.1), into peers.json
    python benchmarks/base.py --ship                                              # the averaged weights go into the package, with a card

Captcha number i is the same on every machine with the same code and the same Pillow, and none comes twice; the row of the results names the commit of each start. All that is needed to go on is kept in `cache/base/` every few minutes and when the script is stopped by Ctrl-C, SIGTERM or `--minutes`.
`--samples` may be another number when it is started again: the learning rate rises at first, stays, and falls over the last 30 % of them, so a training that is to end early or late only needs that number.
More typefaces make it read more kinds: `--fonts FOLDER` takes those of a folder beside the ones of matplotlib and captcha, such as those of Debian's packages `fonts-*`, without the ones whose letters are symbols.
What is measured, and shipped, is a moving average of the weights: after each power of two of samples on captchas of every style that training never draws, and, where `CAPTCHA_FASTAI_DATA` is set,
on all of captcha_images_v2 and a fixed thousand of the competition's images. The real ones are reported and decide nothing.
"""
import argparse, json, os, signal, string, time
from dataclasses import replace
from functools import lru_cache
import torch
from captcha_fastai.all import *
from torch.utils.data import DataLoader, Dataset # not fastai's
from common import cache, commit, digest, load_json, real_captchas, results, save_json, where, wilson

FONTS = *SANS, *SERIF, 'cmb10', 'cmr10', 'cmss10', 'cmti10', 'cmtt10'
HEIGHTS, WIDTHS, MAX_LEN = (48,60,80), range(80, 361, 40), 8
ALPHABETS = {base_chars: 6, string.digits: 2, string.ascii_lowercase: 1, string.ascii_uppercase: 1, string.digits+string.ascii_lowercase: 3, string.digits+string.ascii_uppercase: 3, string.ascii_letters: 1}
EASY = 100_000 # over the first samples the hard ones come in: at the beginning all are up to three plain digits, then plain characters, and the network is told roughly where they stand
PLAIN = 'image_captcha','phase1'
ALL = *Mixed().styles, 'varied'
HARD,OFTEN = 330_000, dict(competition=3, scatter=2, photo_serif=2, varied=12) # from that sample on, the styles that are read worst of the drawn ones come more often, and every second picture is of no style at all
RECIPE = dict(lr=3e-3, wd=0.02, bs=64, ema=0.9995, warm=6400, fall=0.3, seed=0, hard=HARD, often=OFTEN)
vocab = Vocab(base_chars)

class Drawn(Dataset):
    "Captcha `i` as `(uint8 (3, 64, 160), int64 (8,))`, drawn at a random size and squished."
    def __init__(self, seed, without=(), fonts=(), styles=None, easy=EASY):
        self.seed,self.easy = seed,easy
        self.styles = [o for o in styles or ALL if o not in without]
        if not self.styles: raise ValueError(f'No style is left without {", ".join(without)}.')
        self.files = usable_fonts((*FONTS, *fonts), base_chars)
    @lru_cache
    def style(self, h, plain, hard=False):
        sized = replace(get_style('image_captcha'), font_sizes=tuple(round(k*h/60) for k in (36,44,50,56))) # the package's letters do not grow with the picture
        names = [o for o in self.styles if o in PLAIN or not plain] or self.styles
        if hard: names = [o for o in names for _ in range(OFTEN.get(o, 1))]
        return Mixed(styles=tuple(sized if o == 'image_captcha' else o for o in names), **(dict(after=0., amount=0.) if plain else {}))
    def plan(self, i):
        "Text, size and the random numbers of captcha `i`"
        r = Rng(f'base {self.seed} {i}')
        level = i/self.easy if self.easy else 1.
        plain = r.random() >= level
        chars, = r.choices(list(ALPHABETS), ALPHABETS.values())
        if plain and r.random() >= 4*level: chars = string.digits
        n = r.randint(1, 3 if plain else MAX_LEN)
        h = r.choice(HEIGHTS)
        wide = h*max(1.2, n*r.triangular(.4, 1.3, .6)) # 0.4 to 1.3 heights for a character
        return ''.join(r.choices(chars, k=n)), (h, min(WIDTHS, key=lambda w: abs(w-wide))), plain, r
    def image(self, i):
        text,size,plain,r = self.plan(i)
        return self.style(size[0], plain, i >= HARD).draw(text, size, self.files, r), text
    def __getitem__(self, i):
        im,text = self.image(i)
        return torch.from_numpy(image_array(im, base_size).transpose(2,0,1).copy()), encode_label(text, vocab, MAX_LEN).as_subclass(Tensor)

def loader(data, samples, bs, workers, device):
    "Batches of the samples of these numbers, in their order."
    more = dict(prefetch_factor=8) if workers else {}
    return DataLoader(data, bs, sampler=samples, num_workers=workers, drop_last=True, pin_memory=device.type == 'cuda', generator=torch.Generator(), **more) # a generator of its own, for the other's state is kept

def autocast(device): return torch.autocast(device.type, torch.bfloat16)
def prepare(x, device): return ((x.to(device, non_blocking=True).float()/255-.5)/.25).contiguous(memory_format=torch.channels_last)

# ## Measuring

def fold(s): return s.casefold()

def rights(texts, labels):
    "How many are right, as they are and case-folded"
    n = len(labels)
    row = lambda k: dict(right=k, accuracy=round(100*k/n, 2), interval=wilson(k, n))
    return dict(n=n, exact=row(sum(a == b for a,b in zip(texts, labels))), folded=row(sum(fold(a) == fold(b) for a,b in zip(texts, labels))))

def zero_shot(model, images, labels, device):
    "Rights of greedy reading over the whole alphabet, as they are and case-folded; `images` can be opened by `open_image`."
    texts,model = [],model.eval()
    for i in range(0, len(images), 128):
        x = torch.from_numpy(np.stack([image_array(o, base_size) for o in images[i:i+128]])).permute(0,3,1,2)
        with torch.inference_mode(): out = model(prepare(x, device)).float().log_softmax(-1).cpu()
        texts += [vocab.decode(o) for o in CTCHead(vocab).ids(to_np(out))]
    return rights(texts, labels)

def peer():
    "ddddocr as it comes, on the real sets"
    import ddddocr
    ocr = ddddocr.DdddOcr(show_ad=False)
    sets = {k: rights([ocr.classification(f.read_bytes()) for f in files], labels) for k,(files,labels) in real_sets().items()}
    for k,v in sets.items(): print(k, v)
    made = where('ddddocr')
    save_json(results/'peers.json', dict(rows=[dict(name=f"ddddocr {made['versions']['ddddocr']}", points=[dict(sets=sets)], **made)]))

@lru_cache(1)
def real_sets():
    "All of captcha_images_v2 and a thousand of the competition's images, where they are"
    root,res = os.environ.get('CAPTCHA_FASTAI_DATA'),{}
    if not root: return res
    if (p := Path(root)/'captcha_images_v2').is_dir(): res['captcha_images_v2'] = real_captchas(p)
    if (p := Path(root)/'competition').is_dir():
        files,labels = real_captchas(p)
        some = pd.Series(range(len(files))).sample(1000, random_state=0)
        res['competition images'] = [files[i] for i in some], [labels[i] for i in some]
    return res

@lru_cache(1)
def drawn_sets(n):
    "`n` captchas of each style that no training draws; at most 9 × `n` pictures in memory"
    return {s: tuple(map(list, zip(*(d.image(i) for i in range(n))))) for s in ALL for d in [Drawn(f'test {s}', styles=[s], easy=0)]}

def measure(model, device, n): return {k: zero_shot(model, *v, device) for k,v in (drawn_sets(n) | real_sets()).items()}

# ## Training

def even_path(y, t):
    "Ids `(N, L)` as a CTC path `(N, t)`: the characters evenly spread, blanks between them."
    n = (y != 0).sum(1, keepdim=True)
    at = (torch.arange(t, device=y.device)+.5)*n/t # in characters
    return y.gather(1, at.long())*((at%1 > .25) & (at%1 < .75))

class Run:
    "A training with everything that it needs to go on."
    def __init__(self, args, device):
        self.args,self.device = args,device
        torch.manual_seed(RECIPE['seed'])
        self.recipe = dict(RECIPE, without=sorted(args.without), fonts=len(Drawn(0, fonts=args.fonts).files), **({'bs': args.bs, 'lr': args.lr} if args.bs else {}), **({'start': digest(args.start), 'seen': args.seen} if args.start else {}))
        self.model = captcha_base(len(vocab), MAX_LEN, base_size).to(device, memory_format=torch.channels_last)
        if args.start: self.model.load_state_dict({k: v.float() if v.is_floating_point() else v for k,v in read_weights(args.start).tensors.items()})
        self.average = moving_average(self.model, RECIPE['ema'])
        self.opt = torch.optim.AdamW(self.model.parameters(), self.recipe['lr'], weight_decay=self.recipe['wd'], betas=(.9,.99))
        self.loss,self.augment = CaptchaCTCLoss(vocab),CaptchaAugment(p=.5)
        self.seen,self.seconds,self.rows,self.losses,self.commits = args.seen,0.,[],[],[]
        self.file = cache/'base'/(args.name+'.pth')
        if self.file.exists(): self.load()
        if self.commits[-1:] != [commit]: self.commits.append(commit)
    def load(self):
        s = torch.load(self.file, weights_only=True, map_location=self.device)
        if s['recipe'] != self.recipe: raise ValueError(f"{self.file} is of another recipe, {s['recipe']}, not {self.recipe}; give this one another --name.")
        for k in ('model','average','opt'): getattr(self, k).load_state_dict(s[k])
        torch.set_rng_state(s['rng'].cpu())
        self.seen,self.seconds,self.rows,self.losses,self.commits = (s.get(k, []) for k in ('seen','seconds','rows','losses','commits'))
    def save(self):
        self.file.parent.mkdir(exist_ok=True, parents=True)
        tmp = self.file.with_suffix('.tmp')
        torch.save(dict(recipe=self.recipe, seen=self.seen, seconds=self.seconds, rows=self.rows, losses=self.losses, commits=self.commits, rng=torch.get_rng_state(), **{k: getattr(self, k).state_dict() for k in ('model','average','opt')}), tmp)
        os.replace(tmp, self.file)
        TrimMemory().after_epoch()
    def lr(self):
        "Up at first, then level, and down to nothing over the last part."
        r,left = self.recipe,1-self.seen/self.args.samples
        return r['lr']*min(1, (self.seen-self.args.seen+r['bs'])/r['warm'], max(left, 0)/r['fall'])
    def step(self, x, y):
        for g in self.opt.param_groups: g['lr'] = self.lr()
        x = self.augment.encodes(TensorImage(x.to(self.device, non_blocking=True).float()/255)).as_subclass(Tensor)
        x = ((x-.5)/.25).contiguous(memory_format=torch.channels_last)
        with autocast(self.device): out = self.model(x)
        out,y,told = out.float(),y.to(self.device, non_blocking=True),max(0., 1-self.seen/EASY)
        loss = self.loss(out, y)
        # CTC alone sits on its plateau of blanks; a rough path takes it off at once
        both = (1-told)*loss + told*4*F.cross_entropy(out.flatten(0, 1), even_path(y, out.shape[1]).flatten()) if told else loss
        self.opt.zero_grad(); both.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.)
        self.opt.step(); self.average.update_parameters(self.model)
        self.seen += len(x)
        return loss.detach()
    def measure(self):
        self.rows.append(dict(samples=self.seen, minutes=round(self.seconds/60, 1), loss=self.losses[-1][1] if self.losses else None, sets=measure(self.average.module, self.device, self.args.test)))
        print(f'{self.seen:,} samples, {self.seconds/60:.1f} min:', ', '.join(f"{k} {v['exact']['accuracy']}/{v['folded']['accuracy']}" for k,v in self.rows[-1]['sets'].items()), flush=True)
        self.model.train()

def train(run, args):
    "Until all samples are seen, the time is up, or somebody stops it; True if it is done."
    stop_at,stopped = args.minutes and time.time()+60*args.minutes,[]
    old = {s: signal.signal(s, lambda *_: stopped.append(1)) for s in (signal.SIGINT, signal.SIGTERM)}
    try: return _train(run, args, stop_at, stopped)
    finally:
        for s,f in old.items(): signal.signal(s, f)

def _train(run, args, stop_at, stopped):
    data = Drawn(RECIPE['seed'], args.without, args.fonts)
    start = saved = time.time(); total = []
    for x,y in loader(data, range(run.seen, args.samples), run.recipe['bs'], args.workers, run.device):
        before = run.seen
        total.append(run.step(x, y))
        now = time.time()
        if run.seen//12_800 > before//12_800:
            run.losses.append((run.seen, round(torch.stack(total).mean().item(), 4))); total = []
            print(f'{run.seen:,} samples, loss {run.losses[-1][1]:.3f}, {(run.seconds+now-start)/60:.1f} min', flush=True)
        power = before.bit_length() < run.seen.bit_length() and run.seen >= 2**14
        late = stopped or stop_at and now > stop_at
        if power or late or now-saved > 60*args.every:
            run.seconds += now-start
            if power: run.measure()
            run.save(); start = saved = time.time()
        if late: return False
    run.seconds += time.time()-start
    if not run.rows or run.rows[-1]['samples'] != run.seen: run.measure()
    run.save()
    return True

def row(run, args):
    "The row of the results."
    return dict(name=args.name, recipe=run.recipe, samples=run.seen, planned=args.samples, parameters=sum(p.numel() for p in run.model.parameters()), styles=[s for s in ALL if s not in args.without], typefaces=sorted({Path(f).stem for f in Drawn(0, fonts=args.fonts).files}),
                minutes=round(run.seconds/60, 1), points=run.rows, losses=run.losses, commits=run.commits, threads=torch.get_num_threads(), workers=args.workers, **where('captcha','pillow'))

# ## Shipping

def card(r):
    "The model card of a row of the results."
    last = r['points'][-1]
    first,start = r['recipe'].get('seen', 0),r['recipe'].get('start')
    earlier = f"The first {first:,} are those of an earlier training, from whose weights this one went on: `{start}` in `benchmarks/results/base.json`, which names its styles, typefaces and minutes, too. The others are" if start else 'They are'
    lines = [f"| {k} | {v['n']} | {v['exact']['accuracy']} % ({v['exact']['interval'][0]}–{v['exact']['interval'][1]}) | {v['folded']['accuracy']} % ({v['folded']['interval'][0]}–{v['folded']['interval'][1]}) |" for k,v in last['sets'].items()]
    return f"""# captcha_base

The weights of `captcha_base`: a CTC network of {r['parameters']/1e6:.1f} million parameters that reads text captchas of 1 to {MAX_LEN} characters of `0-9A-Za-z`. Kept in half precision.

- **Data**: {r['samples']:,} captchas drawn by this library, each seen once. {earlier} in the styles {', '.join(r['styles'])}, at random sizes, from random alphabets (all, digits, letters, lower or upper case) and in {r['recipe']['fonts']} typefaces, which `benchmarks/results/base.json` names; from captcha {r['recipe']['hard']:,} on, {', '.join(r['recipe']['often'])} come more often. No real captcha was used to train or to choose weights or settings, but two of the styles, `line_blur` and `competition`, were made to look like the two real sets below.
- **Made by**: `benchmarks/base.py` at {"commits" if len(r['commits']) > 1 else "commit"} {', '.join(o[:12] for o in r['commits'])}{" and changes that were not committed yet" if r['uncommitted'] else ""}, seed {r['recipe']['seed']}, {r['minutes']:.0f} minutes{' for the later ones' if start else ''} on {r['machine']['gpu'] or r['machine']['cpu']}; the curve is in `benchmarks/results/base.json`.
- **For**: a start for training on a few labelled captchas of your own (`captcha_learner(dls, captcha_base)`, `learn.few_shot()`), accessibility, and testing how weak a captcha is. Use it only on captchas that are yours, or that you have permission to read.
- **Limits**: Latin letters and digits; at most {MAX_LEN} characters were drawn. Letters whose cases look alike (`c` and `C`, `o`, `O` and `0`) can only be told apart by their neighbours. On captchas unlike anything drawn it reads badly until it gets labels.
- **Licence**: that of the library, Apache-2.0. The typefaces are free ones, of the packages matplotlib and captcha and of Debian; none of them is contained.

Whole captchas read without a label, by greedy decoding over all 62 characters, with 95 % Wilson intervals:

| captchas | n | exact | case-folded |
|---|---|---|---|
{chr(10).join(lines)}
"""

def ship(run, r, folder=Path(__import__('captcha_fastai').__file__).parent/'assets'):
    "Write averaged weights and card; returns the digest of the weights"
    half = {k: v.half() if v.is_floating_point() else v for k,v in run.average.module.state_dict().items()}
    meta = dict(chars=base_chars, max_len=MAX_LEN, arch='captcha_base', size=list(base_size), c_in=3, background=None, mean=[.5]*3, std=[.25]*3)
    path = write_weights(folder/'base.safetensors', Weights(half, meta, {}))
    write_whole(folder/'base.md', card(r).encode())
    print(f'{path}: {path.stat().st_size/1e6:.1f} MB after {run.seen:,} samples')
    return digest(path)

def parser():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a('--samples', type=int, default=2_000_000, help='captchas to train on in all')
    a('--minutes', type=float, help='stop when the time is up; start again to go on')
    a('--start', type=Path, metavar='WEIGHTS', help='go on from the weights of a run that has ended, such as those of the package')
    a('--seen', type=int, default=0, metavar='N', help='captchas that those have seen; the next ones are drawn')
    a('--without', nargs='*', default=[], metavar='STYLE', help='styles to leave out')
    a('--fonts', nargs='*', default=[], metavar='FONT', help='more typefaces: names, files, folders, or system')
    a('--threads', type=int, help='threads of torch (default: as many as cores)')
    a('--workers', type=int, help='processes that draw (default: none, and with a GPU one for each core)')
    a('--device', help='such as cpu (default: a GPU if there is one)')
    a('--bs', type=int, help='another batch size, with --lr'); a('--lr', type=float, default=RECIPE['lr'], help='its learning rate')
    a('--every', type=float, default=4, metavar='MINUTES', help='how often everything is kept')
    a('--test', type=int, default=200, metavar='N', help='captchas of each style to measure with')
    a('--name', help='of the run; its state and its row are found by it (default: base, and what it is without)')
    a('--peer', action='store_true', help='measure ddddocr instead')
    a('--ship', action='store_true', help='train no further; put the averaged weights into the package')
    return p

def main(argv=None):
    args = parser().parse_args(argv)
    if args.peer: return peer()
    args.name = args.name or '-'.join(['base', *(['without', *sorted(args.without)] if args.without else [])])
    if args.threads: torch.set_num_threads(args.threads)
    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    if args.workers is None: args.workers = min(16, defaults.cpus) if device.type == 'cuda' else 0
    run = Run(args, device)
    if args.ship:
        if not run.file.exists(): raise SystemExit(f'{run.file} is not there; train first.')
        if not run.rows or run.rows[-1]['samples'] != run.seen: run.measure(); run.save()
        new = row(run, args)
        new['weights'] = ship(run, new)
    else:
        print('done' if train(run, args) else 'stopped; start again to go on', f'after {run.seen:,} samples', flush=True)
        new = row(run, args)
    points = json.loads(json.dumps(new['points'])) # as they are read back
    same = lambda o: o['name'] == new['name'] and ('weights' not in o or o['points'] == points) # what was shipped keeps its row
    old = load_json(results/'base.json', dict(rows=[]))['rows']
    for o in filter(same, old):
        if 'weights' in o: new.setdefault('weights', o['weights'])
    save_json(results/'base.json', dict(rows=[o for o in old if not same(o)] + [new]))

if __name__ == '__main__': main()
