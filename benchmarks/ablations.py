"""What each ingredient of the recipes is worth: one after the other left out, nothing else changed, three seeds.

    python ablations.py --bf16 --threads 1 [--arch crnn]

Rows and ingredients are those of `ablations` in captcha_fastai/recipes.py. Seed s is trained on fold s of the cross-validation alone, 208 images, and reads the other 832, so a row has 2,496 readings; the last epoch counts. Warm starts that are alike are shared.
A training that is stopped goes on where it was, and several can share the work (`--arch`, `--rows`)."""
from captcha_fastai.recipes import ablations as table, crossval
from crossval import train_fold
from fitting import *

seeds = [0, 1, 2]

if __name__ == '__main__':
    p = parser(__doc__, 'ablations')
    p.add_argument('--arch', nargs='*', default=list(table), choices=list(table), help='architectures (default: all)')
    p.add_argument('--rows', nargs='*', metavar='ROW', help='what is left out (default: everything, one after the other)')
    p.add_argument('--seeds', nargs='*', type=int, default=seeds, choices=seeds, help='seeds, each with a fold of its own')
    bf16_option(p)
    args = parsed(p, 'ablations')
    home = kept_in(args.short)/'ablations'
    every = {(arch, what): whole(r, args.short, args.bf16) for arch in args.arch for what,r in table[arch].items() if args.rows is None or what in args.rows}
    file_of = lambda arch, what, seed: home/f'{arch}-{what}-{digest(every[arch,what])}-few-{seed}.json'
    for (arch,what),r in every.items():
        for seed in args.seeds:
            if (file := file_of(arch, what, seed)).exists(): continue
            part = train_fold(captcha_data(crossval['data']), None, r, seed, seed, 'few', folder := file.with_suffix(''), args.short)
            save_json(file, part)
            shutil.rmtree(folder)
            print(f"{arch} without {what}, seed {seed}: {score(pd.DataFrame(part['predictions']))}, {part['cpu_seconds']/60:.1f} CPU minutes", flush=True)
        done = [(seed, load_json(f)) for seed in seeds if (f := file_of(arch, what, seed)).exists()]
        if not done: continue
        df = pd.DataFrame([dict(p, seed=seed) for seed,part in done for p in part['predictions']])
        by_seed = [score(pd.DataFrame(part['predictions']))['captcha_accuracy'] for _,part in done]
        last = done[-1][1]
        row = dict(arch=arch, without=what, **{k:v for k,v in score(df).items() if k not in ('low','high')}, seeds=[s for s,_ in done], by_seed=by_seed, recipe=r, cpu_minutes=round(sum(part['cpu_seconds'] for _,part in done)/60, 1), warm_cpu_minutes=round(last['warm']['cpu_seconds']/60, 1),
                   misread={s: {k: ' '.join(o if o else '∅' for o in g[k]) for k in ('file','label','text')} for s,g in df[df.label != df.text].groupby('seed')}, **{k: last[k] for k in ('threads','machine','versions','commit','uncommitted','date')})
        save_json(args.out, dict(rows=[o for o in load_json(args.out, dict(rows=[]))['rows'] if (o['arch'], o['without']) != (arch, what)] + [row]))
