"""The three reference learners on captcha_images_v2: 936 images to train, 104 to test, three split seeds, the last epoch.

A stopped script goes on where it was, and several can share the work (`--arch crnn --threads 1` beside `--arch nopool_xresnet --threads 1`). All runs together are `results/three_approaches.json`.
Warm starts see synthetic images only; they are made once for each architecture, kept in `cache/`, and their time is counted in every row."""
import argparse
from captcha_fastai.all import *
from captcha_fastai.recipes import crossval, recipes
from fitting import *

seeds = [0, 1, 2]

def of(arch): return whole(crossval['rows'][arch])

def run(path, arch, seed, folder):
    r = of(arch)
    dls = make_loaders(path, r, RandomSplitter(0.1, seed=seed))
    learn,warm = warm_learner(dls, r, seed)
    zero_shot = learn.validate()[1]
    clock = fit(learn, r, folder, seed)
    df = readings(learn)
    curve = [o[2:] for o in clock.points]
    return dict(arch=arch, seed=seed, n=len(df), right=int(df.right.sum()), captcha_accuracy=float(df.right.mean()), char_accuracy=chars_right(df.label, df.text),
                best_epoch=max(o[2] for o in curve), before_real_images=zero_shot, recipe=r, size=list(dls.size), mode='RGB',
                warm_minutes=round(warm['seconds']/60, 2), minutes=round(clock.passed/60, 2), curve=dict(columns=columns, epochs=curve), predictions=records(df), **made())

def summary(rows):
    "Mean over the seeds and interval over all test images, for each architecture."
    out = []
    for arch in recipes:
        rs = [r for r in rows if r['arch'] == arch]
        if not rs: continue
        k,n = sum(r['right'] for r in rs),sum(r['n'] for r in rs)
        low,high = wilson(k, n)
        out.append(dict(arch=arch, seeds=[r['seed'] for r in rs], right=k, n=n, captcha_accuracy=round(100*k/n, 2), low=low, high=high,
                        char_accuracy=round(100*sum(r['char_accuracy'] for r in rs)/len(rs), 2), before_real_images=round(100*sum(r['before_real_images'] for r in rs)/len(rs), 1),
                        warm_minutes=rs[0]['warm_minutes'], minutes=round(sum(r['minutes'] for r in rs)/len(rs), 1)))
    return out

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--arch', nargs='*', default=list(recipes), help='architectures (default: all)')
    p.add_argument('--seeds', nargs='*', type=int, default=seeds, help='seeds of the split and of the training')
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    file_of = lambda arch, seed: cache/'three_approaches'/f'{arch}-{digest(of(arch))}-{seed}.json'
    for arch,seed in ((arch, seed) for seed in args.seeds for arch in args.arch):
        if (file := file_of(arch, seed)).exists(): continue
        row = run(captcha_data('captcha_images_v2'), arch, seed, folder := file.with_suffix(''))
        save_json(file, row)
        shutil.rmtree(folder)
        print(f"{arch} seed {seed}: {row['right']} of {row['n']}", flush=True)
    rows = [load_json(f) for arch in recipes for seed in seeds if (f := file_of(arch, seed)).exists()]
    save_json(results/'three_approaches.json', dict(summary=summary(rows), rows=rows))
    for s in summary(rows): print(s)
