"""What the base reads after a hundred labels, or five hundred: several draws of labelled images, tested on all the others, and the keys that labelling takes.

    python benchmarks/few_shot.py --threads 1                       # whatever is missing, draw by draw
    python benchmarks/few_shot.py --data captcha_images_v2 --labels 100 --draws 0 1
    python benchmarks/few_shot.py --unlabelled                      # the same draws with 400 unlabelled images, which are then not among the tested ones
    python benchmarks/few_shot.py --tta                             # the readers of all rows so far, which are kept in cache/few_shot, read a thousand of the same images again in six orders of the colour channels
    python benchmarks/few_shot.py --keys                            # least certain first against random order

Draw number d is a permutation of all images by the seed d: the first ones are labelled (a fifth of them are kept back by `few_shot` to stop by), the rest is read once, at the end:
at any length, which counts, and with the shortest and longest length of the labels as limits, which is `told_lengths`.
A line of the results belongs to the weights that it began with, and is made again for others. The labelled images decide nothing but what the training does with them."""
import argparse, time
import torch
from captcha_fastai.all import *
from captcha_fastai.label import count_keys
from common import cache, chars_right, digest, load_json, real_captchas, results, save_json, where, wilson

UNLABELLED,TTA = 400,1000
KEYS = dict(images=300, every=20, target=.97, minutes=1., seeds=3)

def drawn(name, draw):
    "Files and labels in the order of a draw"
    files,labels = real_captchas(captcha_data(name))
    order = np.random.default_rng(draw).permutation(len(files))
    return [files[i] for i in order],[labels[i] for i in order]

def limits(lengths):
    "Options of decoding for one who knows how many characters there are"
    lengths = {*lengths}
    return dict(min_length=min(lengths), max_length=max(lengths), on_impossible='empty')

def kept(row):
    "Where the reader of a row is"
    return cache/'few_shot'/'-'.join(str(row[k]) for k in ('data','labels','draw','unlabelled','minutes','weights'))

def tta(row):
    "What the reader of a row reads of its first tested images in six orders of the channels, and in one; None if it is not there any more"
    if not (folder := kept(row)).exists() or digest(folder/'model.safetensors') != row['reader']: return
    files,labels = (o[row['labels']+row['unlabelled']:][:TTA] for o in drawn(row['data'], row['draw']))
    six = (one := CaptchaReader.load(folder)).tta()
    def right(reader):
        lp = reader.log_probs(files)
        read = lambda **known: sum(reader.vocab.decode(h[0].ids) == l for h,l in zip(reader.head.decode(lp, **known), labels))
        return dict(right=read(), told_lengths=read(**limits(reader.info['lengths'])))
    return dict(n=len(labels), orders=len(six.net.members), one=right(one), **right(six), **where())

def run(name, n, draw, unlabelled, args):
    "One training: the row of the results."
    files,labels = drawn(name, draw)
    set_seed(draw, reproducible=True)
    learn = captcha_learner(CaptchaDataLoaders.from_lists('.', files[:n], labels[:n], seed=draw, num_workers=0), captcha_base, weights=args.weights)
    more,tested = (files[n:n+UNLABELLED], n+UNLABELLED) if unlabelled else ([],n)
    start,cpu = time.time(),time.process_time()
    with learn.no_bar(): res = learn.few_shot(unlabelled=more or None, **(dict(minutes=args.minutes) if args.minutes else {}))
    seconds,cpu = time.time()-start,time.process_time()-cpu
    lengths,lp = [*map(len, labels[:n])],learn.log_probs(files[tested:])
    folder = kept(dict(data=name, labels=n, draw=draw, unlabelled=UNLABELLED if unlabelled else 0, minutes=args.minutes, weights=digest(args.weights)))
    CaptchaReader.from_learner(learn).save(folder) # to be looked at afterwards
    def read(**known): return [learn.vocab.decode(h[0].ids) for h in learn.head.decode(lp, **known)]
    texts,told = read(),read(**limits(map(len, labels[:n])))
    files,labels = files[tested:],labels[tested:]
    right,wrong = sum(a == b for a,b in zip(labels, texts)),[(f.name, l, t or '∅') for f,l,t in zip(files, labels, texts) if l != t]
    low,high = wilson(right, len(labels))
    return dict(data=name, labels=n, draw=draw, unlabelled=UNLABELLED if unlabelled else 0, used=' '.join(f.name for f in more), guessed=res.guessed, n=len(labels), right=right, told_lengths=sum(a == b for a,b in zip(labels, told)), captcha_accuracy=round(100*right/len(labels), 2), low=low, high=high,
                char_accuracy=round(100*chars_right(labels, texts), 2), kept_back=dict(n=res.kept, before=round(100*res.before, 2), after=round(100*res.after, 2)), rounds=res.rounds, seconds=round(seconds, 1), cpu_seconds=round(cpu, 1),
                misread={k: ' '.join(o[i] for o in wrong) for i,k in enumerate(('files','labels','texts'))}, minutes=args.minutes, bf16=bool(fast_floats(learn.dls.device)), weights=digest(args.weights), reader=digest(folder/'model.safetensors'), threads=torch.get_num_threads(), **where('captcha','pillow'))

def keys(name, draw, uncertain_first, args):
    "Keys that labelling takes until the target is read."
    n = KEYS['images']
    files,labels = (o[:n+700] for o in drawn(name, draw))
    set_seed(draw, reproducible=True)
    alphabet = ''.join(sorted({*''.join(labels)})) # which a site knows
    teach = Teacher(CaptchaReader.base(path=args.weights), alphabet, minutes=KEYS['minutes'])
    points = count_keys(teach, files[:n], labels[:n], files[n:], labels[n:], KEYS['every'], KEYS['target'], uncertain_first, draw)
    return dict(data=name, draw=draw, uncertain_first=uncertain_first, minutes=KEYS['minutes'], points=points, typed=sum(len(l)+1 for l in labels[:points[-1]['labels']]), target=KEYS['target'], every=KEYS['every'], weights=digest(args.weights), threads=torch.get_num_threads(), **where())

def same(o, row): return all(o[k] == v for k,v in row.items())
def rows(out): return load_json(out, dict(rows=[]))['rows']

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a('--data', nargs='*', default=['captcha_images_v2','competition'], help='folders of captcha_data')
    a('--labels', nargs='*', type=int, default=[100,500], help='labelled images')
    a('--draws', nargs='*', type=int, default=[*range(5)], help='draws of them')
    a('--unlabelled', action='store_true', help=f'with {UNLABELLED} unlabelled images')
    a('--tta', action='store_true', help='read in six orders of the channels, with the readers of the rows that are there')
    a('--keys', action='store_true', help='count the keys that labelling takes')
    a('--minutes', type=float, help='for a training (default: that of few_shot)')
    a('--weights', type=Path, default=base_file, help='of captcha_base (default: those of the package)')
    a('--threads', type=int, help='threads of torch (default: as many as cores)')
    a('--out', type=Path, help='another file to write')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    out,now = args.out or results/('keys.json' if args.keys else 'few_shot.json'), digest(args.weights)
    if args.tta:
        for row in rows(out):
            if 'tta' in row: continue
            if not (found := tta(row)):
                print(f"the reader of {row['data']}, {row['labels']} labels, draw {row['draw']} is not in {kept(row)}")
                continue
            save_json(out, dict(rows=[dict(o, tta=found) if o == row else o for o in rows(out)]))
            print({k: row[k] for k in ('data','labels','draw')}, {k: found[k] for k in ('n','one','right','told_lengths')}, flush=True)
        return
    if args.keys:
        todo = [(dict(data=d, draw=s, uncertain_first=u, minutes=KEYS['minutes']), lambda o: keys(o['data'], o['draw'], o['uncertain_first'], args)) for d in args.data for s in range(KEYS['seeds']) for u in (True, False)]
    else:
        todo = [(dict(data=d, labels=n, draw=s, unlabelled=UNLABELLED*args.unlabelled, minutes=args.minutes), lambda o: run(o['data'], o['labels'], o['draw'], bool(o['unlabelled']), args)) for s in args.draws for n in args.labels for d in args.data]
    for row,f in todo:
        if any(same(o, dict(row, weights=now)) for o in rows(out)): continue
        new = f(row)
        save_json(out, dict(rows=[o for o in rows(out) if not same(o, row)] + [new]))
        print(row, {k: v for k,v in new.items() if k in ('right','n','told_lengths','captcha_accuracy','low','high','guessed','rounds','seconds','points')}, flush=True)

if __name__ == '__main__': main()
