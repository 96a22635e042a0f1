"""Numbers that must hold for any input (hypothesis): vocabularies, padding, metrics against plain loops, batching, weights files of every architecture, resuming at any step."""
import inspect, random
from contextlib import suppress
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from captcha_fastai.all import (Adam, Callback, CaptchaCTCLoss, CaptchaDataLoaders, CaptchaMetric, CaptchaReader, DataLoader, DataLoaders, F, Learner, PositionCrossEntropyLoss, Resumable, SynthCaptcha, Vocab,
                                Weights, arch_meta, captcha_accuracy, captcha_learner, cer, char_accuracy, edit_distance, encode_label, fit_weights, mae, nn, nopool_xresnet, ranger, read_weights, set_seed, steps_needed, write_weights)
from captcha_fastai.tables import csv_line, plain_cell, read_table, safe_cell

some = settings(max_examples=80, deadline=None, derandomize=True)
letters = st.characters(exclude_categories=['Cs'])
alphabets = st.lists(letters, min_size=1, max_size=20, unique=True)
words = st.lists(st.integers(1, 4), max_size=6)

@some
@given(alphabets, st.data())
def test_vocab_round_trips(chars, data):
    vocab = Vocab(chars, data.draw(st.integers(0, len(chars))))
    text = ''.join(data.draw(st.lists(st.sampled_from(chars), max_size=12)))
    ids = vocab.encode(text)
    assert vocab.decode(ids) == text and vocab.blank not in ids.tolist() and len(ids) == len(text)
    padded = torch.cat([ids, torch.full((3,), vocab.blank)])
    assert vocab.decode(padded) == text and Vocab.from_labels([text, ''.join(chars)]).chars == sorted(chars)

@some
@given(alphabets, st.data())
def test_label_padding(chars, data):
    "Padding is 0, and changes neither the text nor a loss, however wide it is"
    vocab = Vocab(chars)
    texts = [''.join(data.draw(st.lists(st.sampled_from(chars), min_size=1, max_size=4))) for _ in range(data.draw(st.integers(1, 4)))]
    wide = data.draw(st.integers(4, 9))
    labels = torch.stack([encode_label(t, vocab, wide) for t in texts])
    assert labels.shape == (len(texts), wide) and [vocab.decode(o) for o in labels] == texts and ((labels != 0).sum(1) == torch.tensor([len(t) for t in texts])).all()
    logits = torch.randn(len(texts), 9, len(vocab), generator=torch.Generator().manual_seed(wide))
    for loss in (PositionCrossEntropyLoss(vocab), CaptchaCTCLoss(vocab)):
        each = loss(logits, labels, reduction='none')
        torch.testing.assert_close(each, torch.stack([loss(l[None], encode_label(t, vocab, 9)[None]) for l,t in zip(logits, texts)]))
        torch.testing.assert_close(loss(logits, labels), each.mean())
        torch.testing.assert_close(loss(logits, labels, reduction='sum'), each.sum())
        torch.testing.assert_close(loss.activation(logits), logits.softmax(2))
        loss.head.temperature = 2.
        torch.testing.assert_close(loss.activation(logits), (logits/2).softmax(2))

@some
@given(st.lists(words, min_size=1, max_size=6), st.integers(0, 2))
def test_steps_needed(labels, more):
    "A character takes a step, and one more if it is like the one before; a label that fits exactly has a loss, one step less is refused"
    width = max(map(len, labels))+more
    targ = torch.tensor([l + [0]*(width-len(l)) for l in labels]).view(len(labels), width)
    need = [len(l) + sum(a == b for a,b in zip(l, l[1:])) for l in labels]
    assert steps_needed(targ).tolist() == need
    loss,logits = CaptchaCTCLoss(),torch.zeros(len(labels), max(need), 5)
    if max(need) > 0: assert (loss(logits, targ, 'none') > 0).tolist() == [True]*len(labels)
    if max(need) > 1:
        with pytest.raises(ValueError, match=f'needs {max(need)} time steps, but the model gives {max(need)-1}'): loss(logits[:,1:], targ)

def test_losses_by_hand():
    g = torch.Generator().manual_seed(0)
    logits,targ = torch.randn(3, 4, 5, generator=g),torch.tensor([[1,2,3,4],[2,2,0,0],[3,0,0,0]])
    torch.testing.assert_close(PositionCrossEntropyLoss()(logits, targ), F.cross_entropy(logits.flatten(0,1), targ.flatten(), label_smoothing=.1))
    position = PositionCrossEntropyLoss()
    assert position.decodes(position.activation(logits)).tolist() == [l[:l.index(0)]+[0]*(4-l.index(0)) if 0 in l else l for l in logits.argmax(2).tolist()]
    for loss in (position, CaptchaCTCLoss()): np.testing.assert_array_equal(loss.log_prob(logits, targ), loss.log_prob(logits, targ.numpy()))
    logits[0,:,1] = -torch.inf # what the net holds for impossible teaches nothing, and spoils nothing
    each = CaptchaCTCLoss()(logits, targ, reduction='none')
    assert each[0] == 0 and (each[1:] > 0).all() and each.isfinite().all()

def edits(a, b):
    "Levenshtein distance by the book"
    d = {(i,0):i for i in range(len(a)+1)} | {(0,j):j for j in range(len(b)+1)}
    for i in range(len(a)):
        for j in range(len(b)): d[i+1,j+1] = min(d[i,j+1]+1, d[i+1,j]+1, d[i,j] + (a[i] != b[j]))
    return d[len(a),len(b)]

@some
@given(st.lists(st.tuples(words, words), min_size=1, max_size=7), st.data())
def test_metrics_are_plain_loops(pairs, data):
    pad = lambda xs, w: np.array([[*x] + [0]*(w-len(x)) for x in xs]).reshape(len(xs), w)
    wp,wt = data.draw(st.integers(6, 9)),data.draw(st.integers(6, 9))
    pred,targ = pad([p for p,_ in pairs], wp),pad([t for _,t in pairs], wt)
    n = sum(len(t) for _,t in pairs)
    assert edit_distance(pred, targ).tolist() == edit_distance(pred.tolist(), targ.tolist()).tolist() == [edits(p, t) for p,t in pairs]
    assert captcha_accuracy(pred, targ) == sum(p == t for p,t in pairs)/len(pairs)
    right = sum(i < len(p) and p[i] == t[i] for p,t in pairs for i in range(len(t)))
    for metric,want in ((char_accuracy, right), (cer, sum(edits(p, t) for p,t in pairs))):
        assert metric(pred, targ) == (want/n if n else None)
        m,cut = CaptchaMetric(metric.func),data.draw(st.integers(0, len(pairs))) # in two batches
        for s in (slice(cut), slice(cut, None)):
            if len(pred[s]): m._add(pred[s], targ[s])
        assert m.value == metric(pred, targ)

def test_metrics_know_their_names():
    for m,name in ((captcha_accuracy,'captcha_accuracy'), (char_accuracy,'char_accuracy'), (cer,'cer')):
        assert (m.name, repr(m), m.__name__, m.__qualname__, m.__module__) == (name, name, name, name, 'captcha_fastai.metrics') and m.__doc__ == m.func.__doc__

@some
@given(st.lists(st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'), max_size=8), min_size=2, max_size=5))
def test_cells_come_back(cells):
    assert [plain_cell(safe_cell(o)) for o in cells] == cells
    assert not any(safe_cell(o).startswith(('=','+','-','@','\t','\r')) for o in cells)

def test_tables_come_back(tmp_path):
    rows = [['=1',' x','a\nb'], ["'=2",'"','\t,'], ['007','','é']]
    (tmp_path/'t.csv').write_bytes(''.join(map(csv_line, [['a','b','c'], *rows])).encode())
    assert read_table(tmp_path/'t.csv') == (['a','b','c'], rows)

synth = SynthCaptcha('0123456789', 4, (40,100), seed=3)

@pytest.fixture(scope='module')
def reader():
    set_seed(0)
    learn = captcha_learner(CaptchaDataLoaders.from_synth(synth, 16, 4, size=(32,64), bs=16), nopool_xresnet, arch_args=dict(body='small_resnet', hidden=16))
    with torch.no_grad(): learn.model.train()(learn.dls.one_batch()[0])
    learn.head.temperature = .1
    return CaptchaReader.from_learner(learn, device='cpu')

def test_batches_and_order_change_nothing(reader):
    images = [synth[i][0] for i in range(9)]
    alone = [reader.read(o) for o in images]
    rng = np.random.default_rng(0)
    for bs in (1,2,4,9,64):
        order = rng.permutation(len(images))
        for i,r in zip(order, reader.read([images[i] for i in order], bs=bs)):
            assert r.text == alone[i].text and abs(r.confidence-alone[i].confidence) < 1e-5

@pytest.mark.parametrize('arch', arch_meta, ids=lambda f: f.__name__)
def test_weights_come_back(arch, tmp_path):
    "Every architecture: written and read, the tensors are the same to the last bit, and fit a fresh model"
    size = arch_meta[arch]['size']
    kw = dict(body='small_resnet') if 'body' in inspect.signature(arch).parameters else {}
    make = lambda: arch(11, 4, size, **kw)
    model,other = make(),make()
    file = write_weights(tmp_path/'w.safetensors', Weights(model.state_dict(), dict(chars='0123456789', max_len=4, arch=arch.__name__), {}))
    weights = read_weights(file)
    assert weights.tensors.keys() == model.state_dict().keys() and all(torch.equal(v, weights.tensors[k]) and v.dtype == weights.tensors[k].dtype for k,v in model.state_dict().items())
    fitted = fit_weights(other, weights, Vocab('0123456789'), 4)
    assert not fitted.moved and not fitted.fresh and all(torch.equal(a, b) for a,b in zip(model.state_dict().values(), other.state_dict().values()))

class Stop(Callback):
    "Ctrl-C in the training batch `at`"
    def __init__(self, at): self.at = at
    def after_backward(self):
        if self.train_iter == self.at: raise KeyboardInterrupt

def noisy(o): return torch.rand(4) + random.random() + np.random.rand(), torch.rand(1)
def shaken(b): return b[0]+torch.rand_like(b[0])*random.random(), b[1]

def train(folder, every, stop=None, opt=Adam):
    "Random items, random batches, dropout, batch norm: 3 epochs of 4 batches"
    set_seed(0)
    dl = lambda: DataLoader(list(range(14)), bs=4, shuffle=True, after_item=noisy, after_batch=shaken)
    learn = Learner(DataLoaders(dl(), dl()), nn.Sequential(nn.Linear(4,8), nn.BatchNorm1d(8), nn.Dropout(.5), nn.Linear(8,1)), loss_func=F.mse_loss, opt_func=opt, metrics=mae)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(3, 1e-2, cbs=[Resumable(folder, every)] + ([Stop(stop)] if stop is not None else []))
    return learn

@pytest.mark.parametrize('opt', [Adam, ranger], ids=['Adam','ranger'])
@pytest.mark.parametrize('every', [0, 1e9], ids=['each batch','each epoch'])
def test_resume_at_any_step(every, opt, tmp_path):
    whole = train(tmp_path/'whole', every, opt=opt)
    for step in range(12):
        with suppress(KeyboardInterrupt): train(tmp_path/str(step), every, step, opt)
        assert (tmp_path/str(step)/'fit-0.ckpt').exists()
        learn = train(tmp_path/str(step), every, opt=opt)
        assert all(torch.equal(a, b) for a,b in zip(whole.model.state_dict().values(), learn.model.state_dict().values())), step
        assert learn.recorder.values == whole.recorder.values and learn.recorder.losses == whole.recorder.losses and learn.recorder.lrs == whole.recorder.lrs
