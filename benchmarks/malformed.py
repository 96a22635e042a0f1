"""Images as nobody should send them, by number: `malformed(seed, i)` is the same image everywhere. What `reliability.py` and the tests feed to every way in."""
import io, pickle, random, struct, zlib
import numpy as np
from PIL import Image
from captcha_fastai.synth import SynthCaptcha

synth = SynthCaptcha('0123456789', 4, (40,100), seed='malformed')

def picture(i):
    "A captcha in 16 greys, which every lossless format and every palette can hold"
    im,text = synth[i]
    return im.convert('L').point(lambda v: v//16*17), text

def saved(im, fmt, **kw): im.save(b := io.BytesIO(), fmt, **kw); return b.getvalue()
def chunk(kind, data, crc=None): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind+data) if crc is None else crc)
def png(w, h, data, bits=8, colour=0): return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, bits, colour, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(data, 9)) + chunk(b'IEND', b'')

_lossless = [('PNG',{}), ('BMP',{}), ('GIF',{}), ('TIFF',{}), ('WEBP',dict(lossless=True)), ('PPM',{})]
_formats = _lossless + [('JPEG',dict(quality=95)), ('JPEG',dict(quality=95, progressive=True)), ('TIFF',dict(compression='tiff_lzw'))]
def some_file(r, im, formats=_formats): fmt,kw = r.choice(formats); return saved(im.convert('RGB') if fmt in ('JPEG','WEBP') else im, fmt, **kw)

def truncated(r, im): return (d := some_file(r, im))[:int(len(d)*r.uniform(.02, .8))]
def flipped(r, im):
    d = bytearray(some_file(r, im))
    for _ in range(r.choice([1,1,2,5,20,100])): d[r.randrange(len(d)) if r.random() < .5 else r.randrange(min(60, len(d)))] ^= 1 << r.randrange(8)
    return bytes(d)
def rotated(r, im):
    k = r.randrange(1, 9)
    turn = {1:None, 2:Image.Transpose.FLIP_LEFT_RIGHT, 3:Image.Transpose.ROTATE_180, 4:Image.Transpose.FLIP_TOP_BOTTOM, 5:Image.Transpose.TRANSPOSE, 6:Image.Transpose.ROTATE_90, 7:Image.Transpose.TRANSVERSE, 8:Image.Transpose.ROTATE_270}[k]
    exif = Image.Exif(); exif[0x112] = k
    return saved(im if turn is None else im.transpose(turn), 'PNG', exif=exif)
def see_through(r, im):
    p = Image.frombytes('P', im.size, (np.asarray(im)//17).tobytes())
    p.putpalette([c for v in range(15) for c in [17*v]*3] + [0,0,0]) # white is see-through, and black if that is forgotten
    return saved(p, r.choice(['PNG','GIF']), transparency=15)
def animated(r, im):
    more = [Image.fromarray(np.random.default_rng(k).integers(0, 16, (im.height,im.width)).astype(np.uint8)*17) for k in range(r.randrange(1, 5))]
    fmt = r.choice(['GIF','PNG','WEBP'])
    return saved(im.convert('RGB') if fmt == 'WEBP' else im, fmt, save_all=True, append_images=more, duration=50, **dict(WEBP=dict(lossless=True)).get(fmt, {}))
def deep(r, im):
    a = np.asarray(im).astype(np.uint16)*257
    return saved(Image.fromarray(a), r.choice(['PNG','TIFF']))

_eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 20\n%%EndComments\n(pwned) print (/tmp/pwned) (w) file closefile showpage\n%%EOF\n'

kinds = { # name: a function of (random numbers, picture), and what has to become of it: 'error', 'same' as the picture, or 'either' of an error and what it decodes to
    'cut off': (truncated, 'either'),
    'bits flipped': (flipped, 'either'),
    'empty': (lambda r, im: b'', 'error'),
    'nothing but zeros': (lambda r, im: bytes(r.randrange(1, 5000)), 'error'),
    'text': (lambda r, im: r.choice(['hello\n', '<html><body>404</body></html>', '{"a": 1}', '<svg xmlns="http://www.w3.org/2000/svg"/>', 'é'*500]).encode(), 'error'),
    'noise': (lambda r, im: r.randbytes(r.randrange(1, 4000)), 'error'),
    'noise behind a true beginning': (lambda r, im: some_file(r, im)[:r.choice([2,4,8,12])] + r.randbytes(r.randrange(1, 3000)), 'either'),
    'a pickle': (lambda r, im: pickle.dumps({'weights': [1.]*r.randrange(50)}), 'error'),
    'a program (EPS)': (lambda r, im: _eps, 'error'),
    'a bomb of declared pixels': (lambda r, im: png(*r.choice([(30000,30000), (2**31-1,2**31-1), (1,2**30), (9000,9000)]), bytes(1000)), 'error'),
    'a bomb of real pixels': (lambda r, im: png(r.randrange(7200, 8000), 7200, bytes(7200*901), 1), 'error'),
    'no pixels': (lambda r, im: png(0, r.randrange(2), b''), 'error'),
    '1×1': (lambda r, im: saved(im.crop((0,0,1,1)), r.choice(['PNG','BMP','GIF','TIFF'])), 'either'),
    '1×20000': (lambda r, im: saved(im.resize(r.choice([(1,20000),(20000,1)])), r.choice(['PNG','BMP','GIF','TIFF'])), 'either'),
    'CMYK': (lambda r, im: saved(im.convert('RGB').convert('CMYK'), 'TIFF'), 'same'),
    'CMYK JPEG': (lambda r, im: saved(im.convert('RGB').convert('CMYK'), 'JPEG', quality=95), 'either'),
    '16 bits': (deep, 'same'),
    'floats': (lambda r, im: saved(im.convert('F'), 'TIFF'), 'either'),
    'palette with transparency': (see_through, 'same'),
    'grey with transparency': (lambda r, im: saved(Image.merge('LA', (Image.new('L', im.size), im.point(lambda v: 255-v))), 'PNG'), 'same'),
    'animated': (animated, 'same'),
    'rotated by EXIF': (rotated, 'same'),
    'broken EXIF': (lambda r, im: saved(im.convert('RGB'), 'JPEG', quality=95, exif=b'Exif\0\0' + r.randbytes(r.randrange(1, 300))), 'either'),
    'broken colour profile': (lambda r, im: saved(im, 'PNG', icc_profile=r.randbytes(r.randrange(1, 500))), 'same'),
    'something behind the end': (lambda r, im: saved(im, 'PNG') + r.randbytes(r.randrange(1, 999)), 'same'),
    'another format than its name': (lambda r, im: some_file(r, im, _lossless), 'same'),
    'wrong checksum': (lambda r, im: (d := saved(im, 'PNG'))[:29] + struct.pack('>I', r.getrandbits(32)) + d[33:], 'error'),
    'a chunk without end': (lambda r, im: (d := saved(im, 'PNG'))[:33] + struct.pack('>I', r.choice([2**31-1, 2**32-1, 2**20])) + d[37:], 'either'),
}

def malformed(seed, i):
    "Image `i`: (kind, bytes, what has to become of it, the picture it was made from, its text)."
    r,kind = random.Random(f'malformed {seed} {i}'),list(kinds)[i % len(kinds)]
    make,expected = kinds[kind]
    im,text = picture(r.randrange(1000))
    return kind, make(r, im), expected, im, text
