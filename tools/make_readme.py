"""Make README.md from nbs/index.ipynb. (nbdev-readme does this with Quarto; this needs nothing but the notebook.)"""
import json, re
from pathlib import Path

root = Path(__file__).parent.parent

def _outputs(cell):
    for o in cell.get('outputs', []):
        data = o.get('data', {})
        if 'text/markdown' in data: yield ''.join(data['text/markdown'])
        elif text := data.get('text/plain', o.get('text')): yield '```\n' + ''.join(text).rstrip() + '\n```'

def _cell(cell):
    src = ''.join(cell['source'])
    flags = set(re.findall(r'^#\| *([\w-]+)(?:: *false)?', src, re.M))
    if cell['cell_type'] == 'markdown': return [src]
    if 'hide' in flags: return []
    code = [] if 'echo' in flags else ['```python\n' + re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip() + '\n```']
    return code + list(_outputs(cell))

def readme():
    "The text of README.md."
    cells = json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf-8'))['cells']
    text = '\n\n'.join(t.strip() for c in cells for t in _cell(c))
    text = re.sub(r'\]\((?![a-z]+:|#|\.\./)', '](nbs/', text).replace('](../', '](') # links as seen from the root
    return '<!-- Made from nbs/index.ipynb by tools/make_readme.py: do not edit. -->\n\n' + text + '\n'

if __name__ == '__main__': (root/'README.md').write_text(readme(), encoding='utf-8')
