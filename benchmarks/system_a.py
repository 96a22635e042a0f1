"""System A: pretrain on drawn digits, change the head from 10 characters to 13, fine-tune on the real captchas of the competition.

Of the 10,000 real images (the folder `competition` in `CAPTCHA_FASTAI_DATA`: `train/*.webp` and `train.csv`), 1,000 are held out by the seed and read once,
after the last epoch; that they are also what the curve is measured on decides nothing. The recipe was not tuned on them: develop with another seed than the reported ones."""
from captcha_fastai.all import *
from captcha_fastai.recipes import system_a
from training import main, synth_loaders, tfms

def real_loaders(row, step, n, seed, args):
    "The real images: `n` to train, those held out to validate."
    path,test = captcha_data(system_a['data']['real']),system_a['test']
    def split(files):
        order = np.random.default_rng(seed).permutation(len(files)).tolist()
        return order[test:test+n], order[:min(args.n or test, test)]
    return CaptchaDataLoaders.from_csv(path, 'train.csv', folder='train', fn_col=lambda o: f'{int(o.Id):05d}.webp', label_col='Label', splitter=split, length=6, repeat=1,
                                       vocab=system_a['data']['phase2']['chars'], size=row['size'], batch_tfms=tfms(row), bs=step['bs'], num_workers=args.workers)

def loaders(row, step, n, seed, args):
    if step['data'] == 'real': return real_loaders(row, step, n, seed, args)
    return synth_loaders(system_a['data'][step['data']], row, step, n, min(args.n or 500, 500), args.workers)

def test(row, learn, seed, args): return learn.dls.valid

if __name__ == '__main__': main('system_a', system_a, __doc__, loaders, test)
