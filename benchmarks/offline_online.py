"""Training from endless fresh captchas alone, and after a fixed set that was learnt first: the plateau of system E, and its cure.

    python benchmarks/offline_online.py [NAME…] [--seeds 0 1 2] [--threads 1]

4 characters of 0-9A-Z drawn by ImageCaptcha at 170×80 and seen at half of that size; `vgg_heads` without normalisation (the reference's kind of network) and with it.
The captchas are drawn once and packed in `cache/`: number i is the same in all runs, a seed decides about weights and order. A run that is online takes each of them once.
The loss of each epoch is measured on 128 captchas that are never trained on, the end on 1,024 others.
Each run (name, seed) is kept in `cache/` when it is done, so a stopped script goes on where it was; all runs together are `results/offline_online.json`.
"""
import argparse, tempfile, time
from functools import partial
import torch
from captcha_fastai.all import *
from common import cache, load_json, results, save_json, where, wilson

CHARS, DRAWN, SEEN, POOL, VALID, TEST = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (80,170), (40,85), 17_000, 128, 1024

def alone(name, n_epoch): return dict(stages[name], offline=None, online=dict(stages[name]['online'], n_epoch=n_epoch))

runs = { # the network's normalisation, and the recipe; online alone gets as many samples as both stages or more
    'plain, online only':      dict(norm=False, recipe=alone('adadelta', 13)),
    'plain, offline → online': dict(norm=False, recipe=stages['adadelta']),
    'norm, online only':       dict(norm=True,  recipe=alone('one_cycle', 10)),
    'norm, offline → online':  dict(norm=True,  recipe=stages['one_cycle']),
    "plain, reference's numbers": dict(norm=False, recipe=stages['reference']),
}

class Half:
    "The captchas of `SynthCaptcha` at the size at which they are seen."
    def __init__(self, seed): self.synth,self.size = SynthCaptcha(CHARS, 4, DRAWN, 'image_captcha', seed),SEEN
    def __getitem__(self, i):
        im,text = self.synth[i]
        return resize_image(im, SEEN),text
    def spec(self): return dict(self.synth.spec(), seen=list(SEEN))

def run(name, seed, drawn, test):
    r,start = runs[name],time.process_time()
    set_seed(seed, reproducible=True)
    with tempfile.TemporaryDirectory() as tmp:
        dls = CaptchaDataLoaders.from_synth(test, 1, TEST, vocab=CHARS, batch_tfms=[], bs=128, path=tmp)
        learn = captcha_learner(dls, vgg_heads, arch_args=dict(body=partial(vgg_body, norm=r['norm']), ps=0.), loss_func=PositionCrossEntropyLoss(dls.vocab, label_smoothing=0.)).to_bf16()
        with learn.no_bar(), learn.no_logging(): rows,(loss,acc,char,_) = learn.offline_online(drawn, r['recipe'], valid=VALID),learn.validate()
    k = round(acc*TEST)
    return dict(name=name, seed=seed, **r, n=TEST, right=k, captcha_accuracy=round(100*acc, 2), interval=wilson(k, TEST), char_accuracy=round(100*char, 2), loss=round(loss, 4),
                stages=[{k:v for k,v in o.items() if k != 'file'} for o in rows], samples=sum(o['samples'] for o in rows),
                cpu_minutes=round((time.process_time()-start)/60, 2), size=SEEN, threads=torch.get_num_threads(), **where('captcha','pillow'))

def file_of(name, seed): return cache/'offline_online'/f'{list(runs).index(name)}-{seed}.json'

def is_done(name, seed): return (f := file_of(name, seed)).exists() and {k:load_json(f)[k] for k in ('norm','recipe')} == runs[name]

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', default=list(runs), metavar='NAME', help=f'which of {"; ".join(runs)} (default: all)')
    p.add_argument('--seeds', nargs='*', type=int, default=[0,1,2], help='seeds of weights and order')
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    drawn,test = (pack(cache/'offline_online'/k, Half(f'offline online, {k}'), n=n, progress=False) for k,n in (('train',POOL), ('test',TEST+1)))
    for seed in args.seeds:
        for name in args.names:
            if is_done(name, seed): continue
            save_json(file_of(name, seed), row := run(name, seed, drawn, test))
            print(f"{name}, seed {seed}: {row['captcha_accuracy']} %, characters {row['char_accuracy']} %, loss {row['loss']}, {row['samples']} samples, {row['cpu_minutes']} min", flush=True)
    done = sorted((int(f.stem.split('-')[0]), int(f.stem.split('-')[1]), f) for f in (cache/'offline_online').glob('?-*.json'))
    save_json(results/'offline_online.json', dict(rows=[load_json(f) for i,seed,f in done if is_done(list(runs)[i], seed)]))
