"""Time to 97 %: the reference's recipe and this library's, on the same split, each in a process of its own, one after the other.

    python time_to_97.py --bf16                      # all rows, two threads
    python time_to_97.py --rows 'reference crnn'     # one of them; the others stay as they are

What counts is the processor time of the whole process until the accuracy on the 104 validation images stays at or above 97 % to the end of the training, with the warm start from drawn captchas counted in. Where a training
never gets there, all of it counts; checkpoints don't, in either. The reference (`plain_fastai.py`) is plain fastai, from no weights, in float32. A training that is stopped goes on where it was; so does the script."""
import json, os, subprocess, sys, time
at_start = 0., time.time() # the process has used nothing yet
from captcha_fastai.recipes import to_97
from captcha_fastai.all import *
import plain_fastai
from fitting import *

wanted = .97
rows = {**{f'reference {arch}': dict(arch=arch, fit=dict(n_epoch=plain_fastai.epochs, lr_max=plain_fastai.lr), bs=plain_fastai.bs, reference=True, schedule='one_cycle', average=None) for arch in plain_fastai.nets}, **to_97}

def reached(points, i, wanted=wanted):
    "The first of `points` from which on number `i` of each stays at or above `wanted`, or None."
    first = None
    for p in points: first = None if p[i] < wanted else first or p
    return first

def run(name, args):
    "Train the row, and write it down."
    files = get_image_files(captcha_data('captcha_images_v2')).sorted()
    splits = RandomSplitter(.1, seed=args.seed)(files)
    if args.short: splits = splits[0][:32],splits[1][:16]
    r,warm = rows[name],dict(cpu_seconds=0., seconds=0.)
    if r.get('reference'):
        r = dict(r, fit=dict(r['fit'], n_epoch=2) if args.short else r['fit'])
        set_seed(args.seed, reproducible=True)
        learn = plain_fastai.learner(plain_fastai.loaders(files, splits), r['arch'])
    else:
        r = whole(r, args.short, args.bf16)
        dls = make_loaders(files[0].parent, r, lambda _: splits, files)
        before = time.process_time(),time.time()
        learn,warm = warm_learner(dls, r, args.seed)
        spent = time.process_time()-before[0],time.time()-before[1] # whether it was made now or before, the warm start is counted once, as it was measured
    start = at_start if r.get('reference') else (at_start[0]+spent[0], at_start[1]+spent[1])
    clock = fit(learn, r, folder := args.home/f'{name}-{digest(r)}-{args.seed}-{torch.get_num_threads()}', args.seed, start)
    names = ['cpu_seconds','seconds',*learn.recorder.metric_names[1:-1]]
    points = [[round(p[0]+warm['cpu_seconds'], 2), round(p[1]+warm['seconds'], 2), *p[2:]] for p in clock.points]
    at = reached(points, names.index('captcha_accuracy'))
    new = dict(name=name, arch=r['arch'], reference=bool(r.get('reference')), seed=args.seed, n_train=len(splits[0]), n_valid=len(splits[1]), wanted=wanted, reached=at is not None, cpu_seconds=(at or points[-1])[0], seconds=(at or points[-1])[1],
               warm=warm, last=points[-1][names.index('captcha_accuracy')], recipe=r, bf16=r.get('bf16', False), curve=dict(columns=names, epochs=points), load=os.getloadavg()[0], **made())
    old = load_json(args.out, dict(rows=[]))['rows']
    save_json(args.out, dict(rows=[o for o in old if (o['name'], o['seed']) != (name, args.seed)] + [new]))
    shutil.rmtree(folder)
    print(f"{name}: {'reached' if at else 'never reached'}, {new['cpu_seconds']/60:.1f} CPU minutes, {100*new['last']:.1f} % at the end", flush=True)

def missing(name):
    "Why a row can't be run here, if it can't."
    if rows[name]['arch'] == 'captcha_base' and not base_file.is_file(): return 'the weights of captcha_base are not in the package'

if __name__ == '__main__':
    p = parser(__doc__, 'time_to_97')
    p.add_argument('--rows', nargs='*', default=list(rows), metavar='ROW', help=f"which of {', '.join(map(repr, rows))} (default: all)")
    p.add_argument('--seed', type=int, default=0, help='of the split and of the training')
    p.add_argument('--again', action='store_true', help='also rows that are in the results')
    p.add_argument('--row', help=argparse.SUPPRESS) # of a process for one row
    bf16_option(p)
    args = parsed(p, 'time_to_97')
    args.home = kept_in(args.short)/'time_to_97'
    if args.row: sys.exit(run(args.row, args))
    for name in args.rows:
        if name not in rows: p.error(f"there is no row {name!r}; there are {', '.join(map(repr, rows))}")
        if why := missing(name): print(f'{name}: left out, since {why}', flush=True); continue
        if not args.again and any((o['name'], o['seed']) == (name, args.seed) and (o['reference'] or o['recipe'] == json.loads(json.dumps(whole(rows[name], args.short, args.bf16)))) for o in load_json(args.out, dict(rows=[]))['rows']): continue
        words = ['--row', name, '--seed', args.seed, '--out', args.out, *['--short']*args.short, *['--bf16']*args.bf16, *(['--threads', args.threads] if args.threads else [])]
        subprocess.run([sys.executable, __file__, *map(str, words)], check=True)
