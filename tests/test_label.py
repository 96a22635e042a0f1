"""Labelling: the page in a real browser, key by key, and the command. The teacher is a small fake, so nothing is trained."""
import signal, subprocess, sys, urllib.parse, urllib.request
from pathlib import Path
from PIL import Image
from captcha_fastai.label import Labelling, label_keys, read_labels
from captcha_fastai.label_app import label_app
from helpers import until
from test_serve import browser, css, serving_app

root = Path(__file__).parent.parent
truth = {'0.png':'aab', '1.png':'bcb', '2.gif':'=ca', 'in/3.png':'cab', 'in/4.png':'abc'}
guesses = {'0.png':('aab', .9), '1.png':('bcc', .3), '2.gif':('aa', .2), 'in/3.png':('cab', .8), 'in/4.png':('xbc', .5)}

def folder_of(path):
    "Pictures of a colour each"
    for i,n in enumerate(truth):
        (path/n).parent.mkdir(exist_ok=True)
        Image.new('RGB', (60,20), (50*i, 90, 120)).save(path/n)
    return path

class Fake:
    "Guesses as `guesses` says, and remembers what it was taught"
    def __init__(self, folder): self.folder,self.taught = folder,[]
    def __call__(self, files, labels, more):
        self.taught.append(dict(zip([o.relative_to(self.folder).as_posix() for o in files], labels)))
        return [guesses[o.relative_to(self.folder).as_posix()] for o in more]

def session_in(folder, **kw):
    s = Labelling(folder, 'abc=', Fake(folder), **kw)
    s.look(); s.thread.join()
    return s

def test_page_by_keyboard(tmp_path):
    (tmp_path/'images').mkdir()
    folder = folder_of(tmp_path/'images')
    s = session_in(folder, every=2)
    with serving_app(label_app(s)) as port, browser(tmp_path) as b:
        from selenium.webdriver import ActionChains, Keys
        names = dict(ArrowLeft=Keys.ARROW_LEFT, ArrowRight=Keys.ARROW_RIGHT, ArrowUp=Keys.ARROW_UP, ArrowDown=Keys.ARROW_DOWN, Delete=Keys.DELETE, Backspace=Keys.BACKSPACE, Enter=Keys.ENTER)
        def press(*ks): ActionChains(b).send_keys(*[names.get(k, k) for k in ks]).perform()
        def shown(): return (css(b, '#picture')[0].get_attribute('alt').removeprefix('The picture '), css(b, '#text')[0].get_attribute('value'))
        def status(): return css(b, '#status')[0].text
        b.get(f'http://127.0.0.1:{port}/')
        until(lambda: shown() == ('2.gif', 'aa')) # the least certain
        assert b.switch_to.active_element.get_attribute('id') == 'text' and css(b, '#sure')[0].text == 'A guess, 20 % sure.'
        until(lambda: b.execute_script('return arguments[0].naturalWidth', css(b, '#picture')[0]) == 60)
        seen = set()
        for width,theme in ((1200, 'light'), (1200, 'dark'), (375, 'light')):
            b.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', dict(width=width, height=800, deviceScaleFactor=1, mobile=False))
            b.execute_cdp_cmd('Emulation.setEmulatedMedia', dict(features=[dict(name='prefers-color-scheme', value=theme)]))
            until(lambda: b.execute_script('return innerWidth') == width)
            assert b.execute_script('return document.documentElement.scrollWidth') <= width
            seen.add(b.execute_script('return getComputedStyle(document.body).backgroundColor'))
        assert len(seen) == 2 # two themes
        # skipped, and taken back
        press('ArrowDown'); until(lambda: shown() == ('1.png', 'bcc')); assert '1 skipped' in status()
        press('ArrowUp'); until(lambda: shown() == ('2.gif', 'aa'))
        # the keys that are counted are those that it takes
        for name,(guess,_) in sorted(guesses.items(), key=lambda o: o[1][1])[:4]:
            until(lambda: shown() == (name, guess))
            press(*label_keys(guess, truth[name]))
            until(lambda: s.labels.get(name) == truth[name] == read_labels(s.table).get(name))
            until(lambda: s.learnt == len(s.labels)//2*2)
        until(lambda: status().startswith('4 of 5 labelled') and 'learnt from 4 labels' in status())
        assert [len(o) for o in s.teach.taught] == [0, 2, 4]
        assert not [o for o in b.get_log('browser') if o['level'] in ('SEVERE','WARNING')]
        # the last label again; a text that is none; the end
        press('ArrowUp'); until(lambda: shown() == ('in/3.png', 'cab')); assert css(b, '#sure')[0].text == 'What you have entered.'
        press('z', 'Enter'); until(lambda: "'z' is not in the alphabet" in css(b, '[role=alert]')[0].text); assert 'in/3.png' not in s.labels
        press('Backspace', *'cab', 'Enter'); until(lambda: shown() == ('0.png', 'aab'))
        press('Enter'); until(lambda: css(b, '#end')[0].is_displayed())
        assert not css(b, '#label')[0].is_displayed() and read_labels(s.table) == truth
        names_missing = b.execute_script("return [...document.querySelectorAll('input,button,progress')].filter(o => !o.labels?.length && !o.textContent && !o.ariaLabel).length")
        assert names_missing == 0

def test_command(tmp_path):
    "Labels by a program, a stop, and on with the same command; the weights of the base may or may not be in the package"
    folder = folder_of(tmp_path)
    code = 'import sys, captcha_fastai.base as b; from pathlib import Path; from captcha_fastai.label_cli import main; b.base_file = Path("none"); sys.exit(main(sys.argv[1:]))'
    def run(i, text):
        p = subprocess.Popen([sys.executable, '-c', code, str(folder), '--port', '0'], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            first,url = p.stdout.readline(),p.stdout.readline().split()[4]
            urllib.request.urlopen(url+'label', urllib.parse.urlencode(dict(image=i, text=text)).encode(), timeout=20).read()
            p.send_signal(signal.SIGINT)
            out,err = p.communicate(timeout=20)
            assert (p.returncode, err) == (0, '')
            return first + out
        finally: p.kill(); p.communicate()
    assert 'no guesses' in run(0, 'xyz')
    out = run(3, "'=1")
    assert out.startswith('5 pictures, 1 labelled') and f'2 of 5 pictures are labelled in {folder/"labels.csv"}' in out
    assert read_labels(folder/'labels.csv') == {'0.png':'xyz', 'in/3.png':"'=1"}

def test_from_csv_reads_them(tmp_path):
    from captcha_fastai.data import CaptchaDataLoaders
    s = session_in(folder_of(tmp_path))
    for i,n in enumerate(s.names): s.enter(i, truth[n])
    dls = CaptchaDataLoaders.from_csv(tmp_path, 'labels.csv', bs=2)
    assert {o.relative_to(tmp_path).as_posix(): l for o,l in zip(dls.tfm.files, dls.tfm.labels)} == truth

def test_help_needs_next_to_nothing():
    code = "import sys; from captcha_fastai.label_cli import main\ntry: main(['--help'])\nexcept SystemExit: print([m for m in ('torch','fasthtml','starlette','numpy','PIL') if m in sys.modules])"
    out = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert 'captcha-label' in out and out.strip().endswith('[]')
