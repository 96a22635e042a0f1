"""Wrong labels: of a hundred, ten get another character at one place, and `learn.suspects()` says which are probably wrong, and which differ from what is read.

    python benchmarks/suspects.py --threads 1        # whatever is missing, into suspects.json

The images are the first of the draw, as in `few_shot.py`; the seed of the draw also chooses the labels that are spoilt, the places and the characters."""
import argparse, random, time
import torch
from captcha_fastai.all import *
from common import digest, load_json, results, save_json, where
from few_shot import drawn

LABELS,WRONG = 100,10

def spoilt(labels, seed):
    "Labels of which `WRONG` have another character at one place, and the numbers of these"
    r,alphabet,labels = random.Random(seed),sorted({*''.join(labels)}),[*labels]
    wrong = r.sample(range(len(labels)), WRONG)
    for i in wrong:
        at = r.randrange(len(labels[i]))
        labels[i] = labels[i][:at] + r.choice([c for c in alphabet if c != labels[i][at]]) + labels[i][at+1:]
    return labels,{*wrong}

def run(name, draw):
    files,labels = (o[:LABELS] for o in drawn(name, draw))
    labels,wrong = spoilt(labels, draw)
    set_seed(draw, reproducible=True)
    learn,start = captcha_learner(CaptchaDataLoaders.from_lists('.', files, labels, seed=draw, num_workers=0), captcha_base),time.time()
    with learn.no_bar(): found = learn.suspects()
    def counts(numbers): return dict(named=len(numbers), wrong=len({*numbers} & wrong))
    return dict(labels=LABELS, wrong=WRONG, agree=found.agree, probably_wrong=counts(found.table.number.tolist()), differing=counts(found.differing.number.tolist()), seconds=round(time.time()-start, 1))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a('--data', nargs='*', default=['captcha_images_v2','competition'], help='folders of captcha_data')
    a('--draws', nargs='*', type=int, default=[*range(3)], help='draws of labelled images')
    a('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    out,now = results/'suspects.json',digest(base_file)
    for draw in args.draws:
        for name in args.data:
            rows = load_json(out, dict(rows=[]))['rows']
            if any((o['data'],o['draw'],o['weights']) == (name,draw,now) for o in rows): continue
            row = dict(data=name, draw=draw, weights=now, **run(name, draw), threads=torch.get_num_threads(), **where())
            save_json(out, dict(rows=[o for o in rows if (o['data'],o['draw']) != (name,draw)] + [row]))
            print(row, flush=True)

if __name__ == '__main__': main()
