"""Five lines and nothing else: what a learner with the library's defaults reads after 20 epochs on 300 images (and 75 to validate), tested on 300 others.

    python benchmarks/plain_use.py [NAME…] [--threads 1] [--bf16]

Each NAME is a line of `kinds`; what was measured before is kept unless it is named again. The last epoch counts."""
import argparse, tempfile, time
import torch
from captcha_fastai.all import *
from captcha_fastai.folder import label_of
from common import chars_right, load_json, results, save_json, where, wilson

kinds = {
    'captcha_images_v2': None,
    'captcha_images_v2, whole body': dict(cut=None),
    'four digits of ImageCaptcha': None,
}
drawn = {'four digits of ImageCaptcha': dict(chars='0123456789', length=4, size=(60,160), style='image_captcha')}
labelled,tested = 375,300

def images(kind, folder):
    "Paths of `labelled` images and of `tested` others."
    if kind in drawn: generate_folder(folder, labelled+tested, SynthCaptcha(seed='plain use', **drawn[kind]))
    files = get_image_files(folder if kind in drawn else captcha_data('captcha_images_v2')).sorted()
    order = np.random.default_rng(7).permutation(len(files))
    return [files[i] for i in order[:labelled]],[files[i] for i in order[labelled:labelled+tested]]

def label(f): return label_of(f) if '_' in f.stem else f.stem

def run(kind, bf16, folder):
    train,test = images(kind, folder)
    dls = CaptchaDataLoaders.from_name_func(folder, train, lambda o: label(Path(o)), seed=0, bs=16)
    set_seed(0, reproducible=True)
    learn = captcha_learner(dls, nopool_xresnet, arch_args=kinds[kind])
    if bf16: learn.to_bf16()
    start = time.time()
    learn.fit_one_cycle(20, 3e-3)
    minutes = (time.time()-start)/60
    curve = [[float(f'{o:.5g}') for o in row] for row in learn.recorder.values]
    texts = [dls.vocab.decode(h[0].ids) for h in learn.head.decode(learn.log_probs(test))]
    right = sum(t == label(f) for t,f in zip(texts, test))
    low,high = wilson(right, len(test))
    return dict(kind=kind, arch_args=kinds[kind] or {}, n_train=len(dls.train_ds), n_valid=len(dls.valid_ds), n=len(test), right=right, captcha_accuracy=round(100*right/len(test), 2), low=low, high=high,
                char_accuracy=round(100*chars_right([*map(label, test)], texts), 2), minutes=round(minutes, 1), bf16=bf16, seed=0,
                curve=dict(columns=list(learn.recorder.metric_names[1:-1]), epochs=curve), predictions=[dict(file=f.name, label=label(f), text=t) for f,t in zip(test, texts)],
                threads=torch.get_num_threads(), **where('captcha','pillow'))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('names', nargs='*', default=list(kinds), metavar='NAME', help=f'which of {", ".join(map(repr, kinds))} (default: all)')
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as cores)')
    p.add_argument('--bf16', action='store_true', help='train in bfloat16, twice as fast on processors that know it')
    args = p.parse_args()
    if args.threads: torch.set_num_threads(args.threads)
    for name in args.names:
        with tempfile.TemporaryDirectory() as d: row = run(name, args.bf16, Path(d))
        rows = [r for r in load_json(results/'plain_use.json', dict(rows=[]))['rows'] if r['kind'] != name] + [row]
        save_json(results/'plain_use.json', dict(rows=rows))
        print({k:v for k,v in row.items() if k in ('kind','right','n','captcha_accuracy','low','high','char_accuracy','minutes')}, flush=True)
