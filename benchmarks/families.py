"""Captchas of other people's packages, which no style here was made after: read without a label by `captcha_base` and by ddddocr, and by `few_shot` after a hundred labels.

    python benchmarks/draw_families.py FOLDER               # in an environment of its own, see there
    pip install ddddocr==1.6.1
    python benchmarks/families.py FOLDER --threads 1        # whatever is missing, into families.json
    python benchmarks/families.py FOLDER --zero-shot --weights FILE --name NAME   # other weights without a label, in a row of their own

They stand for captchas that nobody here has seen: they are tested on, and nothing is chosen by them. The first hundred files of a permutation by the seed 0 are those with labels, the other ones are tested, in all rows."""
import argparse, time
import torch
from captcha_fastai.all import *
from base import rights, zero_shot
from common import digest, load_json, results, save_json, where
from few_shot import limits

LABELS = 100

def family(folder):
    "Files and labels, in the order of the draw"
    files = sorted(folder.glob('*.png'))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    return files, [f.stem.rpartition('_')[0] for f in files]

def few(files, labels, args):
    "Rights after a hundred labels"
    set_seed(0, reproducible=True)
    learn = captcha_learner(CaptchaDataLoaders.from_lists('.', files[:LABELS], labels[:LABELS], seed=0, num_workers=0), captcha_base, weights=args.weights)
    start = time.time()
    with learn.no_bar(): res = learn.few_shot()
    seconds,lp = time.time()-start,learn.log_probs(files[LABELS:])
    def read(**known): return rights([learn.vocab.decode(h[0].ids) for h in learn.head.decode(lp, **known)], labels[LABELS:])
    return dict(read(), told_lengths=read(**limits(map(len, labels[:LABELS])))['exact']['right'], rounds=res.rounds, seconds=round(seconds, 1))

def ddddocr():
    from ddddocr import DdddOcr
    ocr = DdddOcr(show_ad=False)
    return lambda files, labels: rights([ocr.classification(f.read_bytes()) for f in files], labels)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a('folder', type=Path, help='of draw_families.py'); a('--name', default='captcha_base')
    a('--weights', type=Path, default=base_file, help='of captcha_base (default: those of the package)')
    a('--zero-shot', action='store_true', help='without few_shot and ddddocr'); a('--families', nargs='*', help='only these')
    a('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    out,now = results/'families.json', digest(args.weights)
    def base(files, labels):
        net = captcha_base(len(base_chars)+1, 8, base_size)
        net.load_state_dict({k: v.float() if v.is_floating_point() else v for k,v in read_weights(args.weights).tensors.items()})
        return zero_shot(net, files, labels, torch.device('cpu'))
    todo = {args.name: (now, lambda *a: base(*(o[LABELS:] for o in a)))}
    if not args.zero_shot: todo |= {'ddddocr': (None, lambda *a: ddddocr()(*(o[LABELS:] for o in a))), f'{LABELS} labels': (now, lambda *a: few(*a, args))}
    for who,(weights,f) in todo.items():
        for d in sorted(o for o in args.folder.iterdir() if o.is_dir() and (not args.families or o.name in args.families)):
            rows = load_json(out, dict(rows=[]))['rows']
            if any((o['reader'],o['family'],o['weights']) == (who,d.name,weights) for o in rows): continue
            row = dict(reader=who, family=d.name, weights=weights, **f(*family(d)), threads=torch.get_num_threads(), **where('ddddocr','pillow'))
            save_json(out, dict(rows=[o for o in rows if (o['reader'],o['family']) != (who,d.name)] + [row]))
            print(who, d.name, row['n'], row['exact'], row['folded'], {k: row[k] for k in ('told_lengths','rounds','seconds') if k in row}, flush=True)

if __name__ == '__main__': main()
