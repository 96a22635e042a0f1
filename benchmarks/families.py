"""Captchas of other people's packages: read without a label by `captcha_base` and by ddddocr, and by `few_shot` after a hundred labels.

    python benchmarks/draw_families.py FOLDER               # in an environment of its own, see there
    pip install ddddocr==1.6.1
    python benchmarks/families.py FOLDER --threads 1        # whatever is missing, into families.json
    python benchmarks/families.py FOLDER --zero-shot --weights FILE --name NAME   # other weights without a label, in rows of their own, for comparison

They stand for captchas that nobody here has seen, and are to choose nothing by. The first hundred files of a permutation by the seed 0 are those with labels, the other ones are tested, in all rows."""
import argparse, hashlib, time
import torch
from captcha_fastai.all import *
from base import rights, zero_shot
from common import digest, load_json, results, save_json, where
from few_shot import limits, same

LABELS = 100

def family(folder):
    "Files and labels, in the order of the draw"
    files = sorted(folder.glob('*.png'))
    files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    return files, [f.stem.rpartition('_')[0] for f in files]

def few(files, labels):
    "Rights after a hundred labels"
    set_seed(0, reproducible=True)
    learn = captcha_learner(CaptchaDataLoaders.from_lists('.', files[:LABELS], labels[:LABELS], seed=0, num_workers=0), captcha_base)
    start = time.time()
    with learn.no_bar(): res = learn.few_shot()
    seconds,lp = time.time()-start,learn.log_probs(files[LABELS:])
    def read(**known): return rights([learn.vocab.decode(h[0].ids) for h in learn.head.decode(lp, **known)], labels[LABELS:])
    return dict(read(), told_lengths=read(**limits(map(len, labels[:LABELS])))['exact']['right'], rounds=res.rounds, seconds=round(seconds, 1))

def ddddocr(files, labels):
    from ddddocr import DdddOcr
    ocr = DdddOcr(show_ad=False)
    return rights([ocr.classification(f.read_bytes()) for f in files[LABELS:]], labels[LABELS:])

def pictures(files):
    "A digest of what was read"
    h = hashlib.sha256()
    for f in files: h.update(f.name.encode()); h.update(f.read_bytes())
    return h.hexdigest()[:12]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a('folder', type=Path, help='of draw_families.py'); a('--name', default='captcha_base', help='of other weights')
    a('--weights', type=Path, default=base_file, help='of captcha_base (default: those of the package)')
    a('--zero-shot', action='store_true', help='without few_shot and ddddocr'); a('--families', nargs='*', help='only these')
    a('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.weights != base_file and (not args.zero_shot or args.name == 'captcha_base'): p.error('--weights goes with --zero-shot and a --name.')
    folders = {o.name: o for o in sorted(args.folder.glob('*')) if o.is_dir()}
    if lost := [o for o in args.families or () if o not in folders] or ([] if folders else ['any family']): p.error(f'{args.folder} has no {lost[0]}; there are {", ".join(folders) or "none"}.')
    if args.threads: torch.set_num_threads(args.threads)
    def zero(files, labels):
        net = captcha_base(len(base_chars)+1, 8, base_size)
        net.load_state_dict({k: v.float() for k,v in base_weights(path=args.weights).tensors.items()})
        return zero_shot(net, files[LABELS:], labels[LABELS:], torch.device('cpu'))
    now,out = digest(args.weights),results/'families.json'
    todo = [(args.name, 0, zero)] + ([] if args.zero_shot else [('ddddocr', 0, ddddocr), (args.name, LABELS, few)])
    for reader,labels,f in todo:
        for name in args.families or folders:
            files,texts = family(folders[name])
            made = where(*(['ddddocr'] if reader == 'ddddocr' else []), 'pillow')
            key = dict(reader=reader, family=name, labels=labels)
            what = dict(weights=None if reader == 'ddddocr' else now, pictures=pictures(files))
            rows = load_json(out, dict(rows=[]))['rows']
            if any(same(o, key | what) and o['versions'].get('ddddocr') == made['versions'].get('ddddocr') for o in rows): continue
            row = dict(key, **what, **f(files, texts), threads=torch.get_num_threads(), **made)
            rows = load_json(out, dict(rows=[]))['rows'] # another process may have added some
            save_json(out, dict(rows=[o for o in rows if not same(o, key)] + [row]))
            print(key, row['n'], row['exact'], row['folded'], {k: row[k] for k in ('told_lengths','rounds','seconds') if k in row}, flush=True)

if __name__ == '__main__': main()
