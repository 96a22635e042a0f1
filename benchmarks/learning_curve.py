"""Reading 4 characters of 0-9A-Z drawn by ImageCaptcha at 80×170: accuracy against samples seen, and what brought it there.

    python benchmarks/learning_curve.py NAME… [--threads 1]

Each NAME is a line of `runs`. Every training sample is drawn once; every point of a curve is measured on 10,000 images of its own, drawn from another seed,
that nothing has seen before. A run keeps its state in `cache/` after every 12,800 samples, so a stopped script goes on where it was; all runs together are
`results/learning_curve.json`. The weights that are measured are a moving average of those that are trained.
"""
import argparse, os, shutil, time
from functools import partial
import torch
from torch.optim.swa_utils import AveragedModel
from captcha_fastai.all import *
from common import cache, load_json, results, save_json, where, wilson

CHARS, LENGTH, SIZE, STEP, TEST = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', 4, (80,170), 12_800, 10_000
hard = {'0':3, 'O':3} # these two are drawn three times as often as the others

_base = dict(widths=(16,32,64,128,256), hidden=512, ps=0.1, size=SIZE, mode='L', bs=64, lr=3e-3, wd=0.01, smooth=0., weights=None, ema=0.998)
runs = { # steps of 12,800 samples, and what differs from `_base`; the learning rate rises for the first step, stays, and falls over the last
    # `decay` steps; `start` names a run to go on from, as it was before its rate fell; 'even end' does without `weights` from there
    'long': dict(_base, steps=14, decay=3, weights=hard),
    'even end': dict(_base, steps=14, decay=3, start='long'),
    'longer': dict(_base, steps=28, decay=9, weights=hard, start='long'),
}

def source(seed, weights=None): return SynthCaptcha(CHARS, LENGTH, SIZE, 'image_captcha', seed, weights=None if weights is None else [weights.get(c, 1) for c in CHARS])

def learner(r):
    dls = CaptchaDataLoaders.from_synth(source('learning curve', r['weights']), STEP, r['bs'], online=True, size=r['size'], mode=r['mode'], batch_tfms=[], bs=r['bs'])
    return captcha_learner(dls, nopool_xresnet, loss_func=PositionCrossEntropyLoss(dls.vocab, label_smoothing=r['smooth']), metrics=[], wd=r['wd'], opt_func=partial(OptimWrapper, opt=torch.optim.AdamW),
                           arch_args=dict(body=partial(small_resnet, widths=r['widths']), hidden=r['hidden'], ps=r['ps'])).to_bf16()

def read(model, learn, r, seed, n=TEST, shifts=((0,0),)):
    "Labels and texts of `n` fresh images; log-probabilities averaged over `shifts` of the image, in pixels."
    test = CaptchaDataLoaders.from_synth(source(seed), r['bs'], n, size=r['size'], mode=r['mode'], batch_tfms=[], bs=128, vocab=learn.vocab)
    for t in learn.dls.valid.after_batch.fs.filter(risinstance(Normalize)): test.add_tfms([t], 'after_batch')
    model.eval(); labels,texts = [],[]
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        for x,y in test.valid:
            x = x.as_subclass(Tensor).contiguous(memory_format=torch.channels_last)
            out = sum(model(torch.roll(x, s, (2,3))).float().log_softmax(-1) for s in shifts)
            labels += [learn.vocab.decode(o) for o in y]; texts += [learn.vocab.decode(o) for o in learn.loss_func.decodes(out.softmax(-1))]
    return labels,texts

def alike(t): return t.replace('O', '0')

def point(seen, labels, texts):
    "What a reading is worth."
    wrong = [(l,t) for l,t in zip(labels, texts) if l != t]
    return dict(samples=seen, n=len(labels), right=len(labels)-len(wrong), captcha_accuracy=round(100-100*len(wrong)/len(labels), 3), interval=wilson(len(labels)-len(wrong), len(labels)),
                only_0_O=sum(alike(l) == alike(t) for l,t in wrong), wrong=[f'{l} {t}' for l,t in wrong])

class Curve(Callback):
    "Averages the weights, measures after 1, 2, 4, 8, … steps, and keeps everything that is needed to go on."
    order = 70
    def __init__(self, run, file, steps): store_attr()
    def before_fit(self):
        slow = 1-self.run['ema'] # until there are enough weights, the plain mean
        self.average = AveragedModel(self.learn.model, avg_fn=lambda avg, new, n: avg + (new-avg)*torch.clamp(1/(1+n/4), min=slow), use_buffers=True)
        self.rows,self.spent,self.done = [],0.,0
        if self.file.exists():
            s = torch.load(self.file, weights_only=True)
            self.learn.model.load_state_dict(s['model']); self.average.load_state_dict(s['average']); self.opt.load_state_dict(s['opt'])
            self.rows,self.spent,self.done = s['rows'],s['spent'],s['epoch']
            self.dls.train.passes = s['passes']
    def before_train(self): self.start = time.process_time()
    def after_batch(self):
        if self.training: self.average.update_parameters(self.learn.model)
    def after_train(self): self.spent += time.process_time()-self.start
    def after_epoch(self):
        if self.epoch < self.done: return # fastai comes by here for epochs that it skips, too
        k = self.epoch+1
        if k & (k-1) == 0 or k == self.steps:
            self.rows.append(dict(point(k*STEP, *read(self.average, self.learn, self.run, f'learning curve, test {k}')), cpu_minutes=round(self.spent/60, 2)))
            print(self.file.stem, {a:b for a,b in self.rows[-1].items() if a != 'wrong'}, flush=True)
        tmp = self.file.with_suffix('.tmp')
        torch.save(dict(model=self.learn.model.state_dict(), average=self.average.state_dict(), opt=self.opt.state_dict(), rows=self.rows, spent=self.spent, passes=self.dls.train.passes, epoch=k), tmp)
        os.replace(tmp, self.file)
        if k == self.steps-self.run['decay']: shutil.copy(self.file, self.file.with_suffix('.flat')) # before the learning rate falls

def state_of(name, suffix='.pth'): return cache/'learning_curve'/(name.replace(' ', '-')+suffix)

def train(name):
    r,file = runs[name],state_of(name)
    file.parent.mkdir(exist_ok=True, parents=True)
    if 'start' in r and not file.exists():
        if not state_of(r['start'], '.flat').exists(): train(r['start'])
        for o in (file, state_of(name, '.flat')): shutil.copy(state_of(r['start'], '.flat'), o)
    set_seed(0, reproducible=True)
    learn = learner(r); curve = Curve(r, file, r['steps'])
    done = torch.load(file, weights_only=True)['epoch'] if file.exists() else 0
    n,d = r['steps'],r['decay']
    lr = ParamScheduler({'lr': combine_scheds([1/n, (n-d-1)/n, d/n], [SchedLin(r['lr']/20, r['lr']), SchedNo(r['lr'], r['lr']), SchedCos(r['lr'], r['lr']/500)])})
    with learn.no_bar(), learn.no_logging(): learn.fit(n, r['lr'], cbs=[lr, curve], start_epoch=done)
    return learn,curve,r

shifts = [(0,0),(1,0),(-1,0),(0,1),(0,-1)] # in pixels

def ingredients(name, curve, learn, r, n=4000):
    "What the parts of the recipe bring, all on the same fresh images: the weights before and after the learning rate falls, alone and averaged, and shifted copies."
    rows,average = [],copy(curve.average)
    for when,file in (('before the learning rate falls', curve.file.with_suffix('.flat')), ('after', curve.file)):
        s = torch.load(file, weights_only=True)
        learn.model.load_state_dict(s['model']); average.load_state_dict(s['average'])
        ways = [('last weights', learn.model, shifts[:1]), ('averaged weights', average, shifts[:1]), ('averaged weights, five shifted copies', average, shifts)]
        for what,model,at in ways[:2 if when.startswith('before') else 3]:
            rows.append(dict(when=when, what=what, **point(s['epoch']*STEP, *read(model, learn, r, 'learning curve, ingredients', n, at))))
            print({k:v for k,v in rows[-1].items() if k != 'wrong'}, flush=True)
    return rows

def finish(name):
    "A run and its row of the results: the points that are its own, and for a run from the beginning the ingredients."
    learn,curve,r = train(name)
    if 'start' not in r: own,parts = curve.rows,ingredients(name, curve, learn, r)
    else: own,parts = [p for p in curve.rows if p['samples'] > (runs[r['start']]['steps']-runs[r['start']]['decay'])*STEP],[]
    return dict(name=name, run=r, seed=0, parameters=sum(p.numel() for p in learn.model.parameters()), points=own, ingredients=parts, threads=torch.get_num_threads(), **where('captcha','pillow','numpy'))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', default=list(runs), metavar='NAME', help=f'which of {", ".join(runs)} (default: all)')
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    for name in args.names:
        file = state_of(name, '.json')
        if not file.exists() or load_json(file)['run'] != json.loads(json.dumps(runs[name])): save_json(file, finish(name))
    save_json(results/'learning_curve.json', dict(rows=[load_json(f) for n in runs if (f := state_of(n, '.json')).exists()]))
