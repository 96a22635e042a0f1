"""Weights of a learner, there and back: what is noted, which statistics move, what the optimizer keeps. Tiny nets that are not trained."""
import warnings
from functools import partial
import pytest
import torch
from captcha_fastai.all import CaptchaDataLoaders, Normalize, OptimWrapper, RemoveBackground, SynthCaptcha, captcha_learner, nopool_xresnet, read_weights, set_seed, small_resnet, write_weights

def small(chars='0123', length=2, opt=None, tfms=(), size=(24,36), **kwargs):
    set_seed(0)
    dls = CaptchaDataLoaders.from_synth(SynthCaptcha(chars, length, size, seed=1), n=8, valid=8, bs=8, batch_tfms=list(tfms))
    return captcha_learner(dls, nopool_xresnet, arch_args=dict(body=partial(small_resnet, widths=(4,8)), hidden=8), **(dict(opt_func=opt) if opt else {}), **kwargs)

def stepped(**kwargs):
    "A learner whose optimizer has made a step"
    learn = small(**kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    return learn

def norms(learn): return [o for dl in learn.dls.loaders for o in dl.after_batch.fs if isinstance(o, Normalize)]

def background_warnings(f):
    with warnings.catch_warnings(record=True) as ws:
        warnings.simplefilter('always'); f()
    return [str(w.message) for w in ws if 'RemoveBackground' in str(w.message)]

def test_note(tmp_path):
    learn = small(size=(24,40))
    w = read_weights(learn.save_weights(tmp_path/'w'))
    mean,std = ([round(o, 5) for o in getattr(norms(learn)[0], k).flatten().tolist()] for k in ('mean','std'))
    got = dict(w.meta, **{k: [round(o, 5) for o in w.meta[k]] for k in ('mean','std')})
    assert got == dict(chars='0123', max_len=2, arch='nopool_xresnet', size=[24,40], c_in=3, background=None, mean=mean, std=std) and len(mean) == 3
    assert w.opt == {} and w.tensors.keys() == learn.model.state_dict().keys() and all(torch.equal(v, w.tensors[k]) for k,v in learn.model.state_dict().items())
    bare = small(normalize=False)
    assert [read_weights(bare.save_weights(tmp_path/'bare')).meta[k] for k in ('mean','std')] == [None, None]
    with pytest.raises(ValueError, match='has not been trained'): bare.save_weights(tmp_path/'x', with_opt=True)

def test_statistics(tmp_path):
    "They move where `captcha_learner` has chosen them, and only there"
    w = read_weights(small().save_weights(tmp_path/'w'))
    w.meta.update(mean=[.1,.2,.3], std=[.4,.5,.6])
    learn = small(); learn.load_weights(w)
    assert len(norms(learn)) == 2
    for o in norms(learn): torch.testing.assert_close(torch.stack([o.mean.flatten(), o.std.flatten()]).cpu(), torch.tensor([[.1,.2,.3],[.4,.5,.6]]))
    own = small(tfms=[Normalize.from_stats([.7]*3, [.8]*3, cuda=False)]); own.load_weights(w)
    for o in norms(own): assert o.mean.unique().tolist() == [torch.tensor(.7).item()]
    for none in ([.5], None): # for other channels, or for none
        w.meta.update(mean=none, std=none); learn.load_weights(w)
        torch.testing.assert_close(norms(learn)[0].mean.flatten().cpu(), torch.tensor([.1,.2,.3]))

def test_background(tmp_path):
    plain,removed = small(),small(tfms=[RemoveBackground(share=.4)])
    p,r = plain.save_weights(tmp_path/'plain'),removed.save_weights(tmp_path/'removed')
    assert background_warnings(lambda: plain.load_weights(p)) == background_warnings(lambda: removed.load_weights(r)) == []
    tail = 'give its data the same `batch_tfms`, or train on.'
    assert background_warnings(lambda: plain.load_weights(r)) == [f'The weights in {str(r)!r} were trained with `RemoveBackground(share=0.4, tol=0.02)`, and this learner has no `RemoveBackground`; {tail}']
    assert background_warnings(lambda: removed.load_weights(read_weights(p))) == [f"The weights in 'nopool_xresnet' were trained with no `RemoveBackground`, and this learner has `RemoveBackground(share=0.4, tol=0.02)`; {tail}"]
    older = read_weights(r); del older.meta['background']
    assert background_warnings(lambda: plain.load_weights(older)) == []

@pytest.mark.parametrize('opt', [None, partial(OptimWrapper, opt=torch.optim.AdamW)], ids=['fastai','torch'])
def test_state_of_the_optimizer(opt, tmp_path):
    state = lambda learn: {n: getattr(learn.opt, 'opt', learn.opt).state.get(p, {}) for n,p in learn.model.named_parameters()}
    learn = stepped(opt=opt)
    file,bare = learn.save_weights(tmp_path/'w', with_opt=True),learn.save_weights(tmp_path/'bare')
    assert read_weights(file).opt and not read_weights(bare).opt and not any(k.endswith(('do_wd','force_train')) for k in read_weights(file).opt)
    same = small(opt=opt); res = same.load_weights(file, with_opt=True)
    assert (res.moved, res.fresh) == ([], [])
    for (n,a),b in zip(state(learn).items(), state(same).values()):
        assert a and a.keys() == b.keys(), n
        for k in a: assert type(a[k]) is type(b[k]) and (torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k]), (n,k)
    other = small('0123ab', opt=opt); res = other.load_weights(file, with_opt=True)
    has = lambda st: any(k in st for k in ('grad_avg','exp_avg'))
    assert res.moved and all(has(st) == (n not in res.moved) for n,st in state(other).items())
    plain = small(opt=opt); plain.load_weights(file)
    assert plain.opt is None
    with pytest.raises(ValueError, match='no state of an optimizer'): plain.load_weights(bare, with_opt=True)
    with pytest.raises(ValueError, match="'nopool_xresnet' has no state"): plain.load_weights(read_weights(bare), with_opt=True)
    assert all(torch.equal(a, b) for a,b in zip(learn.model.state_dict().values(), plain.model.state_dict().values()))
