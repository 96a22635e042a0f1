"""The three reference learners on captcha_images_v2: 936 images to train, 104 to test, three split seeds, the last epoch.

Each run (architecture, seed) is kept in `cache/` when it is done, so a stopped script goes on where it was, and several can share the work
(`--arch crnn --threads 1` beside `--arch nopool_xresnet --threads 1`). All runs together are `results/three_approaches.json`.
Warm starts see synthetic images only; they are made once for each architecture, kept in `cache/`, and their time is counted in every row."""
import argparse, time, warnings
import torch
from captcha_fastai.all import *
from captcha_fastai.recipes import bodies, recipes
from common import cache, chars_right, load_json, results, save_json, where, wilson

seeds = [0, 1, 2]

def loaders(path, seed, bs): return CaptchaDataLoaders.from_folder(path, valid_pct=0.1, seed=seed, bs=bs)

def learner(dls, arch, decoder=None, **arch_args):
    return captcha_learner(dls, globals()[arch], arch_args=arch_args, decoder=decoder).to_bf16()

def synth_for(dls, style, seed=0): return SynthCaptcha(''.join(dls.vocab.chars), dls.max_len, dls.size, style, seed=seed)

def warm(learn, style, **kw):
    "`learn` after a warm start on drawn captchas of `style`."
    return learn.pretrain(synth_for(learn.dls, style), **kw)

def warmed(key, make, pretrain, of):
    "The model of `make()` after its warm start, and the minutes that this took; from the cache if it is there and of the same recipe."
    learn,file = make(),cache/f'{key.replace("/","_")}.pth'
    if file.exists():
        saved = torch.load(file, weights_only=True)
        if saved['recipe'] == of:
            learn.model.load_state_dict(saved['model'])
            return learn,saved['minutes']
    start = time.time()
    warm(learn, **pretrain)
    minutes = (time.time()-start)/60
    cache.mkdir(exist_ok=True)
    torch.save(dict(model=learn.model.state_dict(), recipe=of, minutes=minutes), file)
    return learn,minutes

def warm_learner(dls, arch):
    "A learner with its warm start, and the minutes of all of it."
    r = recipes[arch]; b = bodies[r['body']]
    set_seed(0, reproducible=True)
    base,minutes = warmed(f'body-{r["body"]}', lambda: learner(dls, b['arch'], **b['arch_args']), b['pretrain'], b)
    if r['pretrain'] is None: return base,minutes
    set_seed(0, reproducible=True)
    learn,more = warmed(arch, lambda: learner(dls, arch, r.get('decoder'), body=base.model.body, cut=None), r['pretrain'], dict(r, body=b))
    return learn,minutes+more

def run(path, arch, seed):
    r,dls = recipes[arch],loaders(path, seed, recipes[arch]['bs'])
    learn,warm = warm_learner(dls, arch)
    zero_shot = learn.validate()[1]
    set_seed(seed, reproducible=True)
    start = time.time()
    learn.fit_one_cycle(**r['fit'])
    minutes = (time.time()-start)/60
    curve = [[float(f'{o:.5g}') for o in row] for row in learn.recorder.values] # before anything else is measured: that starts the recorder anew
    assert len(curve) == r['fit']['n_epoch']
    df = CaptchaInterpretation.from_learner(learn).readings()
    return dict(arch=arch, seed=seed, n=len(df), right=int(df.right.sum()), captcha_accuracy=float(df.right.mean()), char_accuracy=chars_right(df.label, df.text),
                best_epoch=max(o[2] for o in curve), before_real_images=zero_shot, recipe=dict(recipes[arch], body=bodies[r['body']]), size=list(dls.size), mode='RGB',
                warm_minutes=round(warm, 2), minutes=round(minutes, 2), curve=dict(columns=['train_loss','valid_loss','captcha_accuracy','char_accuracy','cer'], epochs=curve),
                predictions=df.assign(confidence=df.confidence.round(6)).drop(columns='right').to_dict('records'), threads=torch.get_num_threads(), **where('captcha','pillow'))

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

def is_done(file, arch): return file.exists() and load_json(file)['recipe'] == dict(recipes[arch], body=bodies[recipes[arch]['body']])

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--arch', nargs='*', default=list(recipes), help='architectures (default: all)')
    p.add_argument('--seeds', nargs='*', type=int, default=seeds, help='seeds of the split and of the training')
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as cores)')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    path,runs = captcha_data('captcha_images_v2'),{(arch,seed): cache/'three_approaches'/f'{arch}-{seed}.json' for seed in args.seeds for arch in args.arch}
    for (arch,seed),file in runs.items():
        if is_done(file, arch): continue
        row = run(path, arch, seed)
        save_json(file, row)
        print(f"{arch} seed {seed}: {row['right']} of {row['n']}", flush=True)
    rows = [load_json(f) for arch in recipes for seed in seeds if is_done(f := cache/'three_approaches'/f'{arch}-{seed}.json', arch)]
    save_json(results/'three_approaches.json', dict(summary=summary(rows), rows=rows))
    for s in summary(rows): print(s)
