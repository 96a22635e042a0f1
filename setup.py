"""Everything but the name and the Python version comes from `settings.ini`."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']
lines = lambda key: [o for o in cfg.get(key, '').splitlines() if o.strip()]
statuses = {'1': 'Planning', '2': 'Pre-Alpha', '3': 'Alpha', '4': 'Beta', '5': 'Production/Stable'}
lib = cfg['lib_name']

setup(
    version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], license=cfg['license'],
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    classifiers=[f"Development Status :: {cfg['status']} - {statuses[cfg['status']]}",
                 f"Natural Language :: {cfg['language']}", 'Programming Language :: Python :: 3'],
    packages=find_packages(include=[lib, f'{lib}.*']), package_data={lib:['assets/*']},
    install_requires=lines('requirements'),
    extras_require={o: lines(f'{o}_requirements') for o in ('fast','packed','accelerate','dask','onnx','hub','dev')},
    entry_points={'console_scripts': lines('console_scripts'), 'nbdev': [f'{lib}={lib}._modidx:d']},
    zip_safe=False)
