"""Captchas of seven packages by other people, as `FOLDER/family/label_number.png`, for `families.py`. In an environment of its own, for one of them is called `captcha` too:

    pip install claptcha==0.3.3 multicolorcaptcha==1.2.0 django-simple-captcha==0.7.0 gvcode==1.0.3 wheezy.captcha==3.2.2 flask-simple-captcha==5.5.5 captchagen==0.1.0 matplotlib
    python benchmarks/draw_families.py FOLDER --number 700

Each draws as its documentation shows, or by its defaults; what differs is said below. The typefaces are its own or, where it has none, DejaVu; number i of a family comes from the seed i."""
import argparse, io, random, string
from pathlib import Path
from importlib.metadata import version
from PIL import Image, ImageFont
import matplotlib

DEJAVU = Path(matplotlib.get_data_path())/'fonts/ttf'
MONO = [str(DEJAVU/f'DejaVuSansMono{o}.ttf') for o in ('','-Bold')]

def text(chars, n): return ''.join(random.choices(chars, k=n))

def wheezy():
    "The example of its documentation: four capitals or digits"
    from wheezy.captcha import image as o
    t = text(string.ascii_uppercase+string.digits, 4)
    return o.captcha([o.background(), o.text(fonts=MONO, drawings=[o.warp(), o.rotate(), o.offset()]), o.curve(), o.noise(), o.smooth()])(t), t

def claptcha():
    "Six capitals in DejaVu Sans Mono Bold, its defaults but for the option noise=.2"
    from claptcha import Claptcha
    if not hasattr(ImageFont.FreeTypeFont, 'getsize'): # which Pillow 10 took away
        ImageFont.FreeTypeFont.getsize = lambda self, t: self.getbbox(t)[2:]
    t,im = Claptcha(text(string.ascii_uppercase, 6), MONO[1], noise=.2).image
    return im, t

def multicolor():
    "The example of its documentation: four digits"
    from multicolorcaptcha import CaptchaGenerator
    g = CaptchaGenerator(2)
    g.l_fonts.sort() # which come in the order of the file system
    o = g.gen_captcha_image(difficult_level=3)
    return o.image, o.characters

def django_simple():
    "Its defaults: four capitals, turned, with arcs and dots"
    from django.conf import settings
    if not settings.configured:
        settings.configure(INSTALLED_APPS=['captcha'], DEBUG=True, DATABASES={}, SECRET_KEY='for drawing only')
        import django; django.setup()
    from captcha.views import _captcha_image
    class Store: challenge = text(string.ascii_uppercase, 4)
    return Image.open(io.BytesIO(_captcha_image(Store, 1).content)), Store.challenge

def gv():
    "Its defaults: five letters or digits, each turned by up to 90 degrees, lines of the same colours"
    from gvcode import VFCode
    o = VFCode(); o.generate_mix(5)
    return o._img, o.code

def flask_simple():
    "Its defaults: six capitals, white on black"
    from flask_simple_captcha.captcha_generation import CAPTCHA
    from flask_simple_captcha.img import create_text_img
    o = CAPTCHA({})
    t = text(sorted(o.characters), 6)
    return create_text_img(t, random.choice(sorted(f.path for f in o.fonts))), t

def captchagen():
    "Four to six letters or digits, turned, coloured and with noise"
    from CaptchaGen.CaptchaGen import CaptchaConfig, CaptchaGenerator
    o = CaptchaGenerator(str(DEJAVU), CaptchaConfig(rotate=True, noise=True, random_color=True))
    o.fonts = [str(DEJAVU/f'DejaVu{k}.ttf') for k in ('Sans','Sans-Bold','Serif','Serif-Bold')]
    return o.generate()

FAMILIES = dict(wheezy=(wheezy, 'wheezy.captcha'), claptcha=(claptcha, 'claptcha'), multicolor=(multicolor, 'multicolorcaptcha'), django_simple=(django_simple, 'django-simple-captcha'),
                gvcode=(gv, 'gvcode'), flask_simple=(flask_simple, 'flask-simple-captcha'), captchagen=(captchagen, 'captchagen'))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('folder', type=Path); p.add_argument('--number', type=int, default=700)
    args = p.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()): raise SystemExit(f'{args.folder} is not empty; name another folder, or empty it.')
    for name,(f,package) in FAMILIES.items():
        (to := args.folder/name).mkdir(parents=True)
        for i in range(args.number):
            random.seed(i)
            im,t = f()
            im.convert('RGB').save(to/f'{t}_{i}.png')
        print(name, f'{package} {version(package)}', args.number, im.size)

if __name__ == '__main__': main()
