"""Training from endless fresh captchas alone, and after a fixed set that was learnt first: the plateau of system E, and its cure.

    python benchmarks/offline_online.py [NAME…] [--seeds 0 1 2] [--threads 1]

4 characters of 0-9A-Z drawn by ImageCaptcha at 170×80 and seen at half of that size, `vgg_heads` without normalisation (the reference's kind of network) and with it,
12,800 samples in every run. The loss and the accuracy of each epoch are measured on 128 images that are never trained on, the end on 1,024 others.
Each run (name, seed) is kept in `cache/` when it is done, so a stopped script goes on where it was; all runs together are `results/offline_online.json`.
"""
import argparse, tempfile, time
from functools import partial
import torch
from captcha_fastai.all import *
from common import cache, load_json, results, save_json, where, wilson

CHARS, LENGTH, DRAWN, SEEN, TEST = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', 4, (80,170), (40,85), 1024
once = stages['reference']
runs = { # the network's normalisation, and the recipe
    'plain, online only':       dict(norm=False, recipe=dict(once, offline=None, online=dict(once['online'], n_epoch=10))),
    'plain, offline → online':  dict(norm=False, recipe=once),
    'norm, one cycle online':   dict(norm=True,  recipe=dict(stages['one_cycle'], offline=None, online=dict(stages['one_cycle']['online'], n_epoch=10))),
    'norm, offline → online':   dict(norm=True,  recipe=stages['one_cycle']),
}

def drawn(seed): return SynthCaptcha(CHARS, LENGTH, DRAWN, 'image_captcha', seed)

def run(name, seed):
    r,start = runs[name],time.process_time()
    set_seed(seed, reproducible=True)
    with tempfile.TemporaryDirectory() as tmp:
        dls = CaptchaDataLoaders.from_synth(drawn(f'test {seed}'), 128, TEST, size=SEEN, batch_tfms=[], bs=128, path=tmp)
        learn = captcha_learner(dls, vgg_heads, arch_args=dict(body=partial(vgg_body, norm=r['norm'])), loss_func=PositionCrossEntropyLoss(dls.vocab, label_smoothing=0.)).to_bf16()
        with learn.no_bar(), learn.no_logging(): rows = learn.offline_online(drawn(seed), r['recipe'], valid=128)
        for o in rows: del o['file']
        loss,acc,char,_ = learn.validate()
    k = round(acc*TEST)
    return dict(name=name, seed=seed, **r, n=TEST, right=k, captcha_accuracy=round(100*acc, 2), interval=wilson(k, TEST), char_accuracy=round(100*char, 2), loss=round(loss, 4), stages=rows,
                samples=sum(o['samples'] for o in rows), cpu_minutes=round((time.process_time()-start)/60, 2), size=SEEN, threads=torch.get_num_threads(), **where('captcha','pillow'))

def file_of(name, seed): return cache/'offline_online'/f'{list(runs).index(name)}-{seed}.json'

def is_done(name, seed): return (f := file_of(name, seed)).exists() and {k:load_json(f)[k] for k in ('norm','recipe')} == runs[name]

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', default=list(runs), metavar='NAME', help=f'which of {"; ".join(runs)} (default: all)')
    p.add_argument('--seeds', nargs='*', type=int, default=[0,1,2], help='seeds of weights and captchas')
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    for seed in args.seeds:
        for name in args.names:
            if is_done(name, seed): continue
            save_json(file_of(name, seed), row := run(name, seed))
            print(f"{name}, seed {seed}: {row['captcha_accuracy']} %, characters {row['char_accuracy']} %, loss {row['loss']}, {row['cpu_minutes']} min", flush=True)
    save_json(results/'offline_online.json', dict(rows=[load_json(file_of(n, s)) for n in runs for s in args.seeds if is_done(n, s)]))
