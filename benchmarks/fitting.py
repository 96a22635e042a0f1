"""Trainings on real images by the tables of *Recipes*: what the benchmarks of accuracy and of speed share.

Warm starts see drawn captchas only; each is made once, kept in `cache/warm/` and counted in every row that starts from it. Every training can be killed at any moment and goes on from its last checkpoint (`Resumable`)."""
import argparse, hashlib, json, shutil, time
import torch
from captcha_fastai.all import *
from captcha_fastai.recipes import bodies
from common import cache, chars_right, load_json, results, save_json, where, wilson

def kept_in(short): return cache/('short' if short else '')

columns = ['train_loss','valid_loss','captcha_accuracy','char_accuracy','cer']

def whole(r, short=False, bf16=True):
    "The recipe `r` with its body's recipe put in; for `short`, next to nothing of it."
    cut = lambda o: dict(o, n=128) if short and o else o
    body = r['body'] and dict(bodies[r['body']], pretrain=cut(bodies[r['body']]['pretrain']))
    return dict(r, body=body, pretrain=cut(r['pretrain']), fit=dict(r['fit'], n_epoch=2) if short else r['fit'], bf16=bf16)

def digest(o): return hashlib.sha256(json.dumps(o, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:10]

def make_loaders(path, r, splitter, files=None, **kwargs):
    "DataLoaders of the real images at the size and with the variation of the recipe."
    files = get_image_files(path).sorted() if files is None else files
    tfms = [] if r['augment'] is None else [CaptchaAugment(**r['augment'])]
    return CaptchaDataLoaders.from_lists(path, files, [o.stem for o in files], splitter=splitter, size=r['size'], mode=r['mode'], bs=r['bs'], batch_tfms=tfms, repeat=1, **kwargs)

def make_learner(dls, arch, arch_args={}, decoder=None, label_smoothing=None, normalize=True, bf16=True, **_):
    "A learner by what a recipe says of it."
    arch = globals()[arch]
    kind = loss_types[arch_meta[arch]['head']]
    loss = kind(dls.vocab, decoder) if label_smoothing is None else kind(dls.vocab, decoder, label_smoothing=label_smoothing)
    learn = captcha_learner(dls, arch, arch_args=arch_args, loss_func=loss, normalize=normalize)
    return learn.to_bf16() if bf16 else learn

class Clock(Callback):
    "Seconds of a training, of the processor (all threads of this process) and of the wall, and where they stood after each epoch. What was spent before a stop is remembered."
    order = 80 # checkpoints are written after it
    def __init__(self, start=None): self.used,self.passed,self.points,self.since = 0.,0.,[],start
    def now(self): return time.process_time(),time.time()
    def tick(self):
        "Count what has passed since the last time."
        new = self.now()
        self.used,self.passed,self.since = self.used+new[0]-self.since[0],self.passed+new[1]-self.since[1],new
    def before_fit(self): self.since = self.since or self.now()
    def after_epoch(self):
        self.tick()
        self.points.append([round(self.used, 2), round(self.passed, 2), *(float(f'{o:.5g}') for o in self.recorder.values[-1])])
    def state_dict(self):
        self.tick()
        return dict(used=self.used, passed=self.passed, points=self.points)
    def load_state_dict(self, s): self.used,self.passed,self.points,self.since = s['used'],s['passed'],s['points'],self.now()
    def costs(self): return dict(cpu_seconds=round(self.used, 2), seconds=round(self.passed, 2))

class Checkpoints(Resumable):
    "`Resumable`, whose writing the clock doesn't count: no training needs it, and large networks would pay more."
    def __init__(self, folder, clock):
        super().__init__(folder)
        self.clock = clock
    def write(self, *args, **kwargs):
        super().write(*args, **kwargs)
        self.clock.since = self.clock.now()

class AverageWeights(Callback):
    "At the end, the weights are a moving average of themselves, the statistics of batch normalisation with them."
    order = 70
    def __init__(self, decay): self.decay = decay
    def before_fit(self):
        self.average = moving_average(self.learn.model, self.decay)
    def after_batch(self):
        if self.training: self.average.update_parameters(self.learn.model)
    def after_fit(self): self.learn.model.load_state_dict(self.average.module.state_dict())
    def state_dict(self): return self.average.state_dict()
    def load_state_dict(self, s): self.average.load_state_dict(s)

class ValidateAtEnd(Callback):
    "Only the last epoch is validated: for trainings on less than they are measured on."
    def before_validate(self):
        if self.epoch < self.n_epoch-1: raise CancelValidException

def fit(learn, r, folder, seed, start=None, cbs=()):
    "Train by the recipe, from the checkpoint in `folder` if there is one; the clock."
    clock = Clock(start)
    how = learn.fit_one_cycle if r['schedule'] == 'one_cycle' else lambda n_epoch, lr_max, **kw: learn.fit(n_epoch, lr_max, **kw)
    set_seed(seed, reproducible=True)
    cbs = [clock, Checkpoints(folder, clock), *cbs] + ([AverageWeights(r['average'])] if r['average'] else [])
    with learn.no_bar(), learn.no_logging(): how(**r['fit'], cbs=cbs)
    return clock

def synth_for(dls, style, seed=0): return SynthCaptcha(''.join(dls.vocab.chars), dls.max_len, dls.size, style, seed=seed)

def warmed(name, make, pretrain, of):
    "The model of `make()` after its warm start as a state, and what that cost; from the cache if the same recipe `of` has been there."
    file = cache/'warm'/f'{name}-{digest(of)}.pth'
    if file.exists(): return torch.load(file, weights_only=True)
    set_seed(0, reproducible=True)
    learn,clock,folder = make(),Clock(),file.with_suffix('')
    opts = {k:v for k,v in pretrain.items() if k != 'style'}
    with learn.no_bar(), learn.no_logging(): learn.pretrain(synth_for(learn.dls, pretrain['style']), **opts, cbs=[clock, Checkpoints(folder, clock)])
    saved = dict(model=learn.model.state_dict(), **clock.costs())
    torch.save(saved, new := file.with_suffix('.new'))
    new.replace(file)
    shutil.rmtree(folder)
    return saved

def warm_learner(dls, r, seed):
    "A learner by the recipe after its warm starts, and what they cost: seconds of processor and wall. What they leave open is drawn by `seed`."
    steps = []
    if b := r['body']: # on whatever real images the learner is for: they are not looked at
        common = {k: r[k] for k in ('normalize','bf16')}
        steps.append(warmed(f"body-{b['arch']}", lambda: make_learner(dls, b['arch'], b['arch_args'], label_smoothing=.1, **common), b['pretrain'], dict(b, size=r['size'], mode=r['mode'], **common)))
    def start():
        learn = make_learner(dls, **r)
        if steps: # all of the model if it is of the same kind, else its body
            fits = {k:v for k,v in steps[-1]['model'].items() if len(steps) > 1 or b['arch'] == r['arch'] or k.startswith('body.')}
            learn.model.load_state_dict({**learn.model.state_dict(), **fits})
        return learn
    if r['pretrain']: steps.append(warmed(r['arch'], start, r['pretrain'], {k:v for k,v in r.items() if k not in ('fit','average','schedule','bs','decoder','augment')}))
    set_seed(seed, reproducible=True)
    return start(), {k: round(sum(o[k] for o in steps), 2) for k in ('cpu_seconds','seconds')}

def score(df):
    "What a table of readings with columns label and text is worth."
    right = int((df.label == df.text).sum())
    low,high = wilson(right, len(df))
    return dict(n=len(df), right=right, captcha_accuracy=round(100*right/len(df), 3), low=low, high=high, char_accuracy=round(100*chars_right(df.label, df.text), 3))

def readings(learn):
    with learn.no_bar(): return CaptchaInterpretation.from_learner(learn).readings()

def records(df): return df.assign(confidence=df.confidence.round(6)).drop(columns='right').to_dict('records')

def readers_in(short=False): return kept_in(short)/'readers'

def reader_of(row, short=False):
    "Where `crossval.py` keeps a reader of the row."
    return readers_in(short)/row.replace(', ', '-').replace(' ', '-')

def parser(doc, name):
    "What the command lines have in common."
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as cores)')
    p.add_argument('--short', action='store_true', help='next to nothing of everything, into cache/short/: does it run?')
    p.add_argument('--out', type=Path, help=f'file of the results (default: results/{name}.json)')
    return p

def parsed(p, name):
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    args.out = args.out or (kept_in(True) if args.short else results)/f'{name}.json'
    return args

def bf16_option(p): p.add_argument('--bf16', action='store_true', help='train in bfloat16, twice as fast on processors that know it')

def made(): return dict(threads=torch.get_num_threads(), **where('captcha','pillow'))
