"""A CRNN on one split of captcha_images_v2, read in four ways: how many of the 104 test images each gets right, and the log-probabilities of the
images on which they differ, for the page about CTC. Its warm start is shorter than that of `three_approaches.py`, so that there is more to repair."""
import argparse
import numpy as np
import torch
from captcha_fastai.all import *
from captcha_fastai.recipes import crossval
from common import results, save_json, where, wilson
from fitting import make_loaders, warm_learner, whole

split = 3 # none of the three of `three_approaches.py`
drawn = dict(body=24_000, crnn=10_000) # images of the warm start
ways = {'greedy': dict(method='greedy'), 'beam': dict(method='beam'), 'beam, length=5': dict(length=5)}

def recipe():
    "That of the CRNN, but for shorter warm starts."
    r = whole(crossval['rows']['crnn'])
    for step,n in ((r['body'], drawn['body']), (r, drawn['crnn'])): step['pretrain'] = dict(step['pretrain'], n=n)
    return r

def trained(dls, r):
    learn,_ = warm_learner(dls, dict(r, decoder=None), split) # it is read in several ways
    learn.fit_one_cycle(**r['fit'])
    return learn

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    dls = make_loaders(captcha_data('captcha_images_v2'), r := recipe(), RandomSplitter(0.1, seed=split))
    learn = trained(dls, r)
    files = [dls.tfm.files[i] for i in dls.valid_ds.items]
    labels,lp = [f.stem for f in files],learn.log_probs(files)
    read = {k: [dls.vocab.decode(h[0].ids) for h in learn.head.decode(lp, **o)] for k,o in ways.items()}
    read['beam over paths'] = [dls.vocab.decode(h[0].ids) for h in path_beam_decode(lp)]
    right = {k: sum(map(str.__eq__, v, labels)) for k,v in read.items()}
    differ = [i for i,o in enumerate(zip(*read.values())) if len(set(o)) > 1]
    sure = [int(np.argmax([o[0].log_prob for o in learn.head.decode(lp)]))] # and one that is easy
    rows = [dict(file=files[i].name, label=labels[i], read={k:v[i] for k,v in read.items()}, log_probs=lp[i].round(4).tolist()) for i in sure+differ]
    save_json(results/'ctc_examples.json', dict(split=split, n=len(files), drawn=drawn, recipe=r, chars=''.join(dls.vocab.chars), size=list(dls.size),
                                                right={k: dict(right=v, low=wilson(v, len(files))[0], high=wilson(v, len(files))[1]) for k,v in right.items()}, rows=rows, **where('captcha')))
    print(right, len(differ))
