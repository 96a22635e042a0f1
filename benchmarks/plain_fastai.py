"""The reference's two learners and its way to load images in plain fastai, with nothing of this library: what speed is compared with.

Images are opened by Pillow and squished one by one, varied by three batch transforms, 8 in a batch; an xresnet34 with fastai's pooled head, or a resnet34 with two LSTMs and CTC; one cycle of 60 epochs at 3e-3. From no weights,
since those of ImageNet have to be downloaded. CTC is read greedily here, which costs less than the reference's beam search."""
from fastai.vision.all import *
from torchvision.models import resnet34

chars = '2345678bcdefgmnpwxy' # ids from 1 on; 0 is kept free
epochs,lr,bs = 60,3e-3,8

class LabelledImage(fastuple):
    def show(self, ctx=None, **kwargs): return show_image(self[0], ctx=ctx, **kwargs)

class ReadCaptcha(Transform):
    "Number of a file to its image and the ids of its name."
    def __init__(self, files): self.files = files
    def encodes(self, i):
        f = self.files[i]
        return LabelledImage(PILImage.create(f), TensorCategory([chars.index(c)+1 for c in f.stem]))

def loaders(files, splits, bs=bs, train_augment=True, device=None):
    "DataLoaders as the reference makes them; without `train_augment`, the images as they are."
    read = ReadCaptcha(files)
    varied = [Rotate(10), Brightness(.5, p=.8), Contrast(.5, p=.8)] if train_augment else []
    return DataLoaders.from_dsets(*(TfmdLists(s, [read]) for s in splits), bs=bs, device=device, num_workers=0, after_item=[Resize((50,200), method=ResizeMethod.Squish), ToTensor],
                                  after_batch=[IntToFloatTensor, *varied])

class Places(nn.Module):
    def forward(self, x): return x.view(len(x), -1, len(chars)+1)

def multihead(length=5): return nn.Sequential(create_body(xresnet34(), pretrained=False, cut=-4), create_head(512, length*(len(chars)+1)), Places())

class Recurrent(nn.Module):
    def __init__(self, n_in, hidden):
        super().__init__()
        self.rnn = nn.LSTM(n_in, hidden, bidirectional=True, batch_first=True)
    def forward(self, x): return self.rnn(x)[0]

class Columns(nn.Module):
    def forward(self, x): return x.permute(0, 3, 1, 2).flatten(2)

def crnn(): return nn.Sequential(*list(resnet34(weights=None).children())[:7], Columns(), nn.Dropout(.1), nn.Linear(1024, 64), Recurrent(64, 256), Recurrent(512, 128), nn.Dropout(.1), nn.Linear(256, len(chars)+1))

def ctc_loss(out, y):
    n,t,_ = out.shape
    return F.ctc_loss(out.float().log_softmax(-1).transpose(0, 1), y.as_subclass(Tensor), torch.full((n,), t, dtype=torch.long), torch.full((n,), y.shape[1], dtype=torch.long), zero_infinity=True)

def place_loss(out, y): return LabelSmoothingCrossEntropyFlat(axis=-1)(out, y)

def places_right(out, y): return (out.argmax(-1) == y).all(1).float().mean()

def ctc_right(out, y):
    "The share of images whose greedy reading is right: repeats merged, then blanks left out."
    ids = out.argmax(-1).tolist()
    texts = [[c for i,c in enumerate(o) if c and (i == 0 or c != o[i-1])] for o in ids]
    return tensor([t == l for t,l in zip(texts, y.tolist())]).float().mean()

nets = {'multihead_xresnet': (multihead, place_loss, places_right), 'crnn': (crnn, ctc_loss, ctc_right)}

def learner(dls, arch):
    make,loss,right = nets[arch]
    right.__name__ = 'captcha_accuracy'
    return Learner(dls, make(), loss_func=loss, metrics=right)
