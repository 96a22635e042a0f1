"""Cross-validation on captcha_images_v2: five folds over all 1040 images, every image read once by a model that has never seen it, the last epoch.

    python crossval.py --bf16 --threads 1                      # all rows of `crossval` in captcha_fastai/recipes.py, folds and seeds that are not done yet
    python crossval.py --bf16 --threads 1 --inner              # to choose by: within the training images of each fold, one fold to measure on
    python crossval.py --table                                 # the tables once more, from the predictions

The folds: file names sorted by their SHA-256, the i-th is in fold i mod 5, so anybody can make them; each prediction says its fold, too. A training that is stopped goes on where it was, and several can share the
work (`--rows`, `--folds`). Final rows have two seeds. `--inner` for fold k trains on three folds, measures on fold k+1, and never opens fold k; its rows are written with the folds that there are.
Of the first fold and seed of each row, a reader is kept in `cache/readers/` for `read_speed.py`, with the names of the images that it has not seen."""
import hashlib
from captcha_fastai.recipes import crossval as table
from captcha_fastai.speed_results import crossval_table, inner_table, mcnemar_table, misread_by_several
from captcha_fastai.all import *
from fitting import *

def folds(names, n=table['folds']):
    "The fold of each file name."
    order = sorted(names, key=lambda o: hashlib.sha256(o.encode()).hexdigest())
    return {o: i % n for i,o in enumerate(order)}

def split(fold, kind, n=table['folds']):
    "Which folds are trained on, and which are read, for this one: `rows` reads it, `inner` the next one, `few` trains on it alone."
    after,others = (fold+1) % n,[k for k in range(n) if k != fold]
    return dict(rows=(others, [fold]), inner=([k for k in others if k != after], [after]), few=([fold], others))[kind]

def train_fold(path, name, r, fold, seed, kind, folder, short):
    "Train by one `split` and read what it says. Of the first of `rows`, a reader is kept under the row's name."
    files = get_image_files(path).sorted()
    of = folds([o.name for o in files])
    train,valid = [[i for i,o in enumerate(files) if of[o.name] in ks] for ks in split(fold, kind)]
    if short: train,valid = train[:64],valid[:32]
    dls = make_loaders(path, r, lambda _: (train,valid), files)
    learn,warm = warm_learner(dls, r, 1000*seed+fold)
    clock = fit(learn, r, folder, 1000*seed+fold, cbs=[ValidateAtEnd()] if kind == 'few' else [])
    df = readings(learn)
    if kind == 'rows' and seed == fold == 0:
        at = reader_of(name, short)
        CaptchaReader.from_learner(learn).save(at)
        save_json(at.with_suffix('.json'), dict(row=name, recipe=r, unseen=list(df.file)))
    return dict(fold=fold, warm=warm, **clock.costs(), curve=clock.points, predictions=records(df.assign(fold=df.file.map(of))), **made())

def row(name, r, seed, parts):
    "The folds of a training put together."
    df = pd.DataFrame([p for part in parts for p in part['predictions']])
    return dict(name=name, arch=r['arch'], **score(df), folds=len(parts), seed=seed, recipe=r, pretrained=bool(r['body'] or r['pretrain'] or 'weights' in arch_meta[globals()[r['arch']]]), final=name in table['final'],
                minutes=round(sum(p['seconds'] for p in parts)/60, 1), cpu_minutes=round(sum(p['cpu_seconds'] for p in parts)/60, 1), warm_cpu_minutes=round(parts[0]['warm']['cpu_seconds']/60, 1),
                **{k: parts[-1][k] for k in ('threads','machine','versions','commit','uncommitted','date')}, commits=sorted({p['commit'] for p in parts}), curves=dict(columns=['cpu_seconds','seconds',*columns], folds=[p['curve'] for p in parts]),
                predictions=sorted(df.to_dict('records'), key=lambda o: o['file']))

if __name__ == '__main__':
    p = parser(__doc__, 'crossval')
    p.add_argument('--rows', nargs='*', default=list(table['rows']), metavar='ROW', help=f"which of {', '.join(map(repr, table['rows']))} (default: all)")
    p.add_argument('--folds', nargs='*', type=int, default=list(range(table['folds'])), help='folds to do now (default: all)')
    p.add_argument('--seeds', nargs='*', type=int, help='seeds of the training (default: 0 and 1 for the final rows, 0 for the others)')
    p.add_argument('--inner', action='store_true', help='measure inside of the training images, to choose by')
    p.add_argument('--table', action='store_true', help='train nothing; make the tables from the predictions')
    bf16_option(p)
    args = parsed(p, 'crossval')
    for name in args.rows:
        if name not in table['rows']: p.error(f"there is no row {name!r}; there are {', '.join(map(repr, table['rows']))}")
    home = kept_in(args.short)/'crossval'
    for seed,name in ((s, n) for s in args.seeds or [0,1] for n in args.rows if not args.table):
        if args.seeds is None and seed and name not in table['final']: continue
        r,kind = whole(table['rows'][name], args.short, args.bf16),'inner' if args.inner else 'rows'
        files = [home/f'{name}-{digest(r)}-{seed}-{kind}-{k}.json' for k in range(table['folds'])]
        for k,file in enumerate(files):
            if k not in args.folds or file.exists(): continue
            part = train_fold(captcha_data(table['data']), name, r, k, seed, kind, folder := file.with_suffix(''), args.short)
            save_json(file, part)
            shutil.rmtree(folder)
            print(f"{name}, seed {seed}, fold {k}{' (inner)'*args.inner}: {score(pd.DataFrame(part['predictions']))}, {part['cpu_seconds']/60:.1f} CPU minutes", flush=True)
        done = [load_json(o) for o in files if o.exists()]
        if len(done) < (1 if args.inner else table['folds']): continue
        res = load_json(args.out, dict(rows=[], inner=[]))
        new = row(name, r, seed, done)
        if args.inner: new = dict({k:v for k,v in new.items() if k not in ('predictions','final')}, folds=[p['fold'] for p in done], misread=[p for p in new['predictions'] if p['text'] != p['label']])
        res[kind] = [o for o in res[kind] if (o['name'], o['seed']) != (name, seed)] + [new]
        save_json(args.out, res)
    if args.out.exists():
        res = load_json(args.out)
        for o in res['rows']: o['final'] = o['name'] in table['final'] # which may have changed since
        save_json(args.out, res)
        for t in (crossval_table(args.out.parent), inner_table(args.out.parent), mcnemar_table(args.out.parent), misread_by_several(args.out.parent)): print(t, '\n')
