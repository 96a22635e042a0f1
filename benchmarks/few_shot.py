"""What the base reads after a hundred labels, or five hundred: several draws of labelled images, tested on all the others, and the keys that labelling takes.

    python benchmarks/few_shot.py --threads 1                       # whatever is missing, draw by draw
    python benchmarks/few_shot.py --data captcha_images_v2 --labels 100 --draws 0 1
    python benchmarks/few_shot.py --unlabelled                      # the same draws with 400 unlabelled images, which are then not among the tested ones
    python benchmarks/few_shot.py --keys                            # least certain first against random order

Draw number d is a permutation of all images by the seed d: the first ones are labelled (a fifth of them are kept back by `few_shot` to stop by), the rest is read once, at the end.
A line of the results belongs to the weights that it began with, and is made again for others. The labelled images decide nothing but what the training does with them."""
import argparse, hashlib, time
import torch
from captcha_fastai.all import *
from captcha_fastai.label import count_keys
from common import chars_right, load_json, results, save_json, where, wilson

OUT,UNLABELLED = results/'few_shot.json',400
KEYS = dict(images=300, every=20, target=.97, minutes=1., seeds=3)

def real(name):
    "Files and labels of a real data set."
    path = captcha_data(name)
    if name == 'captcha_images_v2': return (fs := list(get_image_files(path).sorted())), [f.stem for f in fs]
    df = pd.read_csv(path/'train.csv', dtype=str)
    return [path/'train'/f'{int(o):05d}.webp' for o in df.Id], list(df.Label)

def digest(path): return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]

def run(name, n, draw, unlabelled, args):
    "One training: the row of the results."
    files,labels = real(name)
    order = np.random.default_rng(draw).permutation(len(files))
    files,labels = [files[i] for i in order],[labels[i] for i in order]
    set_seed(draw, reproducible=True)
    learn = captcha_learner(CaptchaDataLoaders.from_lists('.', files[:n], labels[:n], seed=draw), captcha_base, weights=args.weights)
    more,tested = (files[n:n+UNLABELLED], n+UNLABELLED) if unlabelled else ([],n)
    start,cpu = time.time(),time.process_time()
    with learn.no_bar(): res = learn.few_shot(unlabelled=more or None, **(dict(minutes=args.minutes) if args.minutes else {}))
    seconds,cpu = time.time()-start,time.process_time()-cpu
    texts = [learn.vocab.decode(h[0].ids) for h in learn.head.decode(learn.log_probs(files[tested:]))]
    files,labels = files[tested:],labels[tested:]
    right = sum(a == b for a,b in zip(labels, texts))
    low,high = wilson(right, len(labels))
    return dict(data=name, labels=n, draw=draw, unlabelled=UNLABELLED if unlabelled else 0, used=[f.name for f in more], guessed=res.guessed, n=len(labels), right=right, captcha_accuracy=round(100*right/len(labels), 2), low=low, high=high,
                char_accuracy=round(100*chars_right(labels, texts), 2), kept_back=dict(n=res.kept, before=round(100*res.before, 2), after=round(100*res.after, 2)), rounds=res.rounds, seconds=round(seconds, 1), cpu_seconds=round(cpu, 1),
                misread={f.name: dict(label=l, text=t) for f,l,t in zip(files, labels, texts) if l != t}, weights=digest(args.weights), threads=torch.get_num_threads(), **where('captcha','pillow'))

def keys(name, draw, uncertain_first, args):
    "Keys that labelling takes until the target is read."
    files,labels = real(name)
    order,n = np.random.default_rng(draw).permutation(len(files))[:KEYS['images']+700],KEYS['images']
    files,labels = [files[i] for i in order],[labels[i] for i in order]
    set_seed(draw, reproducible=True)
    alphabet = ''.join(sorted({*''.join(labels)})) # which a site knows
    teach = Teacher(CaptchaReader.base(path=args.weights), alphabet, minutes=KEYS['minutes'])
    points = count_keys(teach, files[:n], labels[:n], files[n:], labels[n:], KEYS['every'], KEYS['target'], uncertain_first, draw)
    return dict(data=name, draw=draw, uncertain_first=uncertain_first, points=points, typed=sum(len(l)+1 for l in labels[:points[-1]['labels']]), **KEYS, weights=digest(args.weights), threads=torch.get_num_threads(), **where())

def missing(kind, row, args):
    "Is there no such line for these weights yet?"
    now = digest(args.weights)
    return not any(o['weights'] == now and all(o[k] == v for k,v in row.items()) for o in load_json(OUT, {}).get(kind, []))

def add(kind, row, new):
    "Put a line in the place of the one that answers the same question."
    old = load_json(OUT, dict(rows=[], keys=[]))
    save_json(OUT, {**old, kind: [o for o in old[kind] if not all(o[k] == v for k,v in row.items())] + [new]})

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a('--data', nargs='*', default=['captcha_images_v2','competition'], help='folders of captcha_data')
    a('--labels', nargs='*', type=int, default=[100,500], help='labelled images')
    a('--draws', nargs='*', type=int, default=[*range(5)], help='draws of them')
    a('--unlabelled', action='store_true', help=f'with {UNLABELLED} unlabelled images')
    a('--keys', action='store_true', help='count the keys that labelling takes')
    a('--minutes', type=float, help='for a training (default: that of few_shot)')
    a('--weights', type=Path, default=base_file, help='of captcha_base (default: those of the package)')
    a('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    if args.keys:
        todo = [('keys', dict(data=d, draw=s, uncertain_first=u), lambda o: keys(o['data'], o['draw'], o['uncertain_first'], args)) for d in args.data for s in range(KEYS['seeds']) for u in (True, False)]
    else:
        todo = [('rows', dict(data=d, labels=n, draw=s, unlabelled=UNLABELLED*args.unlabelled), lambda o: run(o['data'], o['labels'], o['draw'], bool(o['unlabelled']), args)) for s in args.draws for n in args.labels for d in args.data]
    for kind,row,f in todo:
        if not missing(kind, row, args): continue
        add(kind, row, new := f(row))
        print(row, {k: v for k,v in new.items() if k in ('right','n','captcha_accuracy','low','high','guessed','rounds','seconds','points')}, flush=True)

if __name__ == '__main__': main()
