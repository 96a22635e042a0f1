"""The project hangs together: export and notebooks agree, notebooks are clean, versions and links agree, imports stay cheap."""
import ast, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path
import pytest

root = Path(__file__).parent.parent
notebooks = sorted(p for p in (root/'nbs').rglob('*.ipynb') if not any(o.startswith(('.','_')) for o in p.relative_to(root).parts))
lower = 'vocab tables ctc kernels rules decode positions fonts styles package styles_flat styles_relief styles_mixed synth manifest folder parts pack evaluate synth_cli preprocess background check heads models systems vgg base weights recipes results plan cli ctc_plots pictures reader_file reading reader_net inference onnx_check onnx_reader onnx_export reader_cli serve_guard serve_page serve serve_cli label teacher label_app label_cli'.split() # layers that must not need fastai

def python(code):
    "What a fresh interpreter prints"
    return subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

def test_export_is_in_sync(tmp_path):
    "Exporting again, to another folder, gives the package that is committed."
    from nbdev.export import nb_export
    lib = tmp_path/'captcha_fastai'
    for nb in notebooks: nb_export(nb, lib_path=lib)
    made = {p.name:p.read_text() for p in lib.glob('*.py') if p.name not in ('__init__.py','_modidx.py')}
    assert made, 'nothing was exported'
    here = {p.name:p.read_text() for p in (root/'captcha_fastai').glob('*.py') if p.name not in ('__init__.py','_modidx.py')}
    assert sorted(made) == sorted(here)
    strip = lambda s: re.sub(r'# %% .*', '# %%', re.sub(r'File to edit: .*', '', s))
    for name in here: assert strip(made[name]) == strip(here[name]), f'{name} differs from its notebook: run nbdev-export'

@pytest.mark.parametrize('nb', notebooks, ids=lambda p: p.stem)
def test_notebook_is_clean(nb, tmp_path):
    from nbdev.clean import nbdev_clean
    copy = tmp_path/nb.name
    copy.write_text(nb.read_text())
    nbdev_clean(fname=str(copy))
    assert copy.read_text() == nb.read_text(), f'{nb.name} is not clean: run nbdev-clean'

@pytest.mark.parametrize('nb', notebooks, ids=lambda p: p.stem)
def test_imports_have_cells_of_their_own(nb):
    "The docs build runs each cell that imports; with other code in it, that would run without what stands before."
    for c in json.loads(nb.read_text())['cells']:
        source = ''.join(c['source'])
        if c['cell_type'] != 'code' or re.search(r'^#\| *(export|eval: *false)', source, re.M): continue
        body = ast.parse(source).body
        imports = [o for o in body if any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(o))]
        assert len(imports) in (0, len(body)) and all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in imports), source

def test_versions_agree():
    cfg = ConfigParser(delimiters=['=']); cfg.read(root/'settings.ini')
    assert python('import captcha_fastai; print(captcha_fastai.__version__)') == cfg['DEFAULT']['version']
    assert f"## {cfg['DEFAULT']['version']}" in (root/'CHANGELOG.md').read_text()

def test_readme_is_index():
    sys.path.insert(0, str(root/'tools'))
    from make_readme import readme
    assert (root/'README.md').read_text() == readme(), 'README.md differs from nbs/index.ipynb: run python tools/make_readme.py'

def test_quarto_settings_are_one_file(): assert (root/'nbs'/'_quarto.yml').resolve() == root/'_quarto.yml'

def test_sidebar_names_every_notebook():
    import yaml
    def files(o): return [f for e in o for f in ([e] if isinstance(e, str) else files(e['contents']) if 'contents' in e else [e['href']])]
    listed = files(yaml.safe_load((root/'nbs'/'sidebar.yml').read_text())['website']['sidebar']['contents'])
    assert sorted(o for o in listed if not o.endswith('.md')) == sorted(str(p.relative_to(root/'nbs')) for p in notebooks)

def test_bare_import_is_cheap():
    assert python('import sys, captcha_fastai; print([m for m in ("fastai","torch","numpy","PIL") if m in sys.modules])') == '[]'

@pytest.mark.parametrize('module', lower)
def test_lower_layers_do_not_need_fastai(module):
    assert python(f'import sys, captcha_fastai.{module}; print("fastai" in sys.modules)') == 'False'

@pytest.mark.parametrize('module', 'vocab tables ctc decode positions heads preprocess background manifest reader_file reading onnx_check onnx_reader reader_cli serve_guard serve_page serve serve_cli label teacher label_app label_cli'.split())
def test_decoding_does_not_need_torch(module):
    assert python(f'import sys, captcha_fastai.{module}; print("torch" in sys.modules)') == 'False'

def test_all_brings_in_everything():
    names = python('from captcha_fastai.all import *; print(" ".join(n for n in dir() if not n.startswith("_")))').split()
    for n in 'Vocab captcha_learner CaptchaDataLoaders crnn beam_decode Learner ImageDataLoaders SynthCaptcha CaptchaReader OnnxReader'.split(): assert n in names, n

def test_data_path_stays_outside():
    "Only .ci/run knows where the workshop keeps its data."
    files = subprocess.run(['git', 'ls-files'], cwd=root, capture_output=True, text=True).stdout.split()
    for f in set(files) - {'.ci/run', 'tests/test_project.py'}:
        assert b'shared/data' not in (root/f).read_bytes(), f

def test_the_oldest_versions_are_the_lower_bounds():
    "What CI installs as the oldest is what settings.ini allows."
    cfg = ConfigParser(delimiters=['=']); cfg.read(root/'settings.ini')
    bounds = dict(re.findall(r'^(fastai|torch|captcha)>=([\d.]+)$', cfg['DEFAULT']['requirements'], re.M))
    pinned = dict(re.findall(r'^([\w-]+)==([\d.]+)$', (root/'.ci'/'oldest.txt').read_text(), re.M))
    assert pinned.keys() == bounds.keys() and all(f'{v}.0.0'.startswith(f'{bounds[k]}.') for k,v in pinned.items())
