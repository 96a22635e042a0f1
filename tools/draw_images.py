"""Draw the site's favicon and social card with the library's own captchas.

    python tools/draw_images.py"""
from pathlib import Path
import matplotlib
matplotlib.use('agg')
import matplotlib.pyplot as plt
from PIL import Image
from captcha_fastai.styles import STYLES
from captcha_fastai.synth import SynthCaptcha

folder = Path(__file__).resolve().parent.parent/'nbs'/'images'

def favicon():
    "One drawn character, 64×64"
    return SynthCaptcha('a', 1, (64,64), 'line_blur', seed=3)[0][0].convert('RGB').quantize(64)

def card():
    "A captcha of each style below the name, 1200×630"
    fig = plt.figure(figsize=(12,6.3), dpi=100, facecolor='white')
    fig.text(.06, .80, 'captcha_fastai', fontsize=58, weight='bold', color='#16324f')
    fig.text(.06, .70, 'Learn to read text captchas with fastai', fontsize=26, color='#333333')
    for i,style in enumerate([o for o in sorted(STYLES) if o != 'mixed']):
        synth = SynthCaptcha('23456789abcdefhkmnpqrstuvwxyz', 5, (60,160), style, seed=11)
        ax = fig.add_axes((.06+.225*(i%4), .36-.27*(i//4), .205, .22))
        ax.imshow(synth[0][0]); ax.set_axis_off()
    fig.canvas.draw()
    image = Image.frombytes('RGBA', fig.canvas.get_width_height(), fig.canvas.buffer_rgba().tobytes()).convert('RGB')
    plt.close(fig)
    return image.quantize(128)

if __name__ == '__main__':
    favicon().save(folder/'favicon.png', optimize=True)
    card().save(folder/'card.png', optimize=True)
